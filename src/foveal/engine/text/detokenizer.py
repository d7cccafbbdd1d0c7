"""Token ids in, text out, as soon as it is certain and never earlier."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Any, Protocol

from foveal.engine.text.token_bytes import TokenBytes

__all__ = ["Detokenizer", "detokenizer"]

MAX_HELD_TOKENS = 8
"""A character has at most four bytes, hence four tokens. What is still undecodable after that many is not UTF-8."""

REPLACEMENT = "\ufffd"


class Detokenizer(Protocol):
    """One per choice. The concatenated deltas and the flush are the decoded text of all ids."""

    def append(self, token_ids: Iterable[int]) -> str:
        """New text that later tokens cannot change; never half a character."""

    def flush(self) -> str:
        """What was held back: an unfinished UTF-8 sequence becomes U+FFFD. Call it once, at the end."""


def detokenizer(table: TokenBytes, *, skip_special_tokens: bool = True, continues_text: bool = False) -> Detokenizer:
    """The right kind for a tokenizer.

    `continues_text`: the output continues a prompt's text (a completion, not a chat reply), so that a leading space
    that the decoder would take off the start of a text stays.
    """
    if table.supported:
        return _ByteDetokenizer(table, skip_special_tokens, 0 if continues_text else table.leading_spaces_to_strip)
    return _WindowDetokenizer(table, skip_special_tokens)


class _ByteDetokenizer:
    """Concatenates token bytes and decodes UTF-8 incrementally; about 0.3 us per token.

    Bytes that are not UTF-8 become one U+FFFD per maximal invalid part, as in byte-level decoders. (The byte-fallback
    decoder of `tokenizers` turns a whole run of byte tokens into U+FFFD, one per byte, if any part of it is invalid;
    that cannot be known before the run ends, and would destroy characters that a client has seen already.)
    """

    def __init__(self, table: TokenBytes, skip_special_tokens: bool, spaces_to_strip: int) -> None:
        self._table = table
        self._skip_special_tokens = skip_special_tokens
        self._spaces_to_strip = spaces_to_strip
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def append(self, token_ids: Iterable[int]) -> str:
        table = self._table
        skip = self._skip_special_tokens
        return self._strip(
            self._decoder.decode(b"".join([table.of(i) for i in token_ids if not (skip and table.is_special(i))]))
        )

    def flush(self) -> str:
        return self._strip(self._decoder.decode(b"", True))

    def _strip(self, text: str) -> str:
        while text and self._spaces_to_strip:
            if text[0] != " ":
                self._spaces_to_strip = 0
            else:
                self._spaces_to_strip -= 1
                text = text[1:]
        return text


class _WindowDetokenizer:
    """For any other decoder: decodes a short window of recent tokens with and without the new ones.

    The window starts at the tokens of the previous delta, which give the new ones their context (spaces, joining).
    """

    def __init__(self, table: TokenBytes, skip_special_tokens: bool) -> None:
        self._backend = table.backend
        self._skip_special_tokens = skip_special_tokens
        self._window: list[int] = []
        self._num_read = 0
        self._read_text = ""

    def append(self, token_ids: Iterable[int]) -> str:
        return "".join([self._append_one(token_id) for token_id in token_ids])

    def flush(self) -> str:
        return self._decode()[len(self._read_text) :]

    def _append_one(self, token_id: int) -> str:
        self._window.append(token_id)
        text = self._decode()
        num_held = len(self._window) - self._num_read
        if len(text) <= len(self._read_text) or (text.endswith(REPLACEMENT) and num_held < MAX_HELD_TOKENS):
            return ""
        delta = text[len(self._read_text) :]
        self._window = self._window[self._num_read :]
        self._num_read = len(self._window)
        self._read_text = self._decode()
        return delta

    def _decode(self) -> str:
        text: Any = self._backend.decode(self._window, skip_special_tokens=self._skip_special_tokens)
        return str(text)
