"""Reads what an answer cost from its last bytes as it passes by; the stream is never parsed."""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

__all__ = ["AnswerUsage", "UsageTail"]

_KEPT_BYTES = 4096
"""A usage object has about 250 bytes, the events after it about 20; llama-server puts 600 bytes of timings behind it."""

_USAGE = re.compile(rb'"usage"\s*:\s*(\{)')
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"(\w+)"')
_ERROR_EVENT = re.compile(rb'data:\s*\{\s*"error"')


class _Multimodal(msgspec.Struct):
    image: int = 0


class _Details(msgspec.Struct):
    cached_tokens: int | None = 0
    multimodal_tokens: _Multimodal | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Whole(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None


_decoder = msgspec.json.Decoder(_Usage)
_whole_decoder = msgspec.json.Decoder(_Whole)


@dataclass(frozen=True, slots=True)
class AnswerUsage:
    """Tokens, as the backend counted them."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    image_tokens: int = 0


class UsageTail:
    """Feed it the answer's bytes in order. What it keeps is bounded."""

    __slots__ = ("_tail", "_whole", "num_bytes", "num_events")

    def __init__(self) -> None:
        self._tail = b""
        self._whole: _Whole | None = None
        self.num_bytes = 0
        self.num_events = 0
        """Server-sent events so far: about one token each where the backend sends no usage."""

    def feed_whole(self, body: bytes) -> None:
        """A complete answer that is no stream. It is decoded once, which is quicker than looking for its parts."""
        self.num_bytes = len(body)
        try:
            self._whole = _whole_decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._tail = body[-_KEPT_BYTES:]

    def feed(self, chunk: bytes) -> None:
        self.num_bytes += len(chunk)
        self.num_events += chunk.count(b"data: ")
        self._tail = chunk[-_KEPT_BYTES:] if len(chunk) >= _KEPT_BYTES else (self._tail + chunk)[-_KEPT_BYTES:]

    @property
    def is_done(self) -> bool:
        """True once the stream's own end mark has passed: a stream without it was cut off."""
        return self._tail.rstrip().endswith(b"[DONE]")

    @property
    def has_error(self) -> bool:
        """True if one of the last events is an error."""
        return _ERROR_EVENT.search(self._tail) is not None

    @property
    def finish_reasons(self) -> tuple[str, ...]:
        """Of a whole answer's choices; of a stream that of the choice that ended last."""
        if self._whole is not None:
            return tuple(choice.finish_reason for choice in self._whole.choices if choice.finish_reason)
        found = _FINISH.findall(self._tail)
        return (found[-1].decode(),) if found else ()

    def usage(self) -> AnswerUsage | None:
        """None where the answer holds none, as streams without `include_usage`.

        A text of the answer cannot be taken for it: JSON escapes the quotes inside a string.
        """
        if self._whole is not None:
            return None if self._whole.usage is None else _answer_usage(self._whole.usage)
        for match in reversed(list(_USAGE.finditer(self._tail))):
            end = _object_end(self._tail, match.start(1))
            if end is None:
                continue
            try:
                found = _decoder.decode(self._tail[match.start(1) : end])
            except msgspec.DecodeError:
                continue
            return _answer_usage(found)
        return None


def _answer_usage(found: _Usage) -> AnswerUsage:
    details = found.prompt_tokens_details
    if details is None:
        return AnswerUsage(found.prompt_tokens, found.completion_tokens)
    images = details.multimodal_tokens.image if details.multimodal_tokens is not None else 0
    return AnswerUsage(found.prompt_tokens, found.completion_tokens, details.cached_tokens or 0, images)


def _object_end(data: bytes, start: int) -> int | None:
    """Position behind the object that opens at `start`. Usage holds no strings, so that counting braces is enough."""
    depth = 0
    for position in range(start, len(data)):
        if data[position] == 0x7B:
            depth += 1
        elif data[position] == 0x7D:
            depth -= 1
            if depth == 0:
                return position + 1
    return None
