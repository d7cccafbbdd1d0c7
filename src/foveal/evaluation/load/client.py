"""One chat completion over HTTP, streamed and timed. Works with any OpenAI-compatible server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from foveal.core.clock import Clock, MonotonicClock
from foveal.core.errors import ConfigurationError
from foveal.evaluation.load.dataset import LoadRequest
from foveal.evaluation.load.event_stream import EventStream
from foveal.evaluation.load.record import RequestRecord

__all__ = ["AnswerError", "ChatClient", "base_url"]


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None


class _ErrorInfo(msgspec.Struct):
    message: str = ""
    code: str | int | None = None


class _Event(msgspec.Struct):
    """Only what is measured, so that other servers' fields do not matter."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: _ErrorInfo | None = None


class _ErrorBody(msgspec.Struct):
    error: _ErrorInfo


class _Model(msgspec.Struct):
    id: str


class _ModelList(msgspec.Struct):
    data: list[_Model]


class AnswerError(Exception):
    """A request failed; `kind` groups it with others of its sort."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind


@dataclass(slots=True)
class _Stream:
    text_s: list[float] = field(default_factory=list)
    usage: _Usage = field(default_factory=_Usage)


def base_url(url: str) -> str:
    """ "http://host:8000", ".../v1" or ".../v1/" -> without the /v1. Raises ConfigurationError for other things."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"{url!r} is not the address of a server; write for example http://localhost:8000")
    return parts._replace(query="", fragment="").geturl().rstrip("/").removesuffix("/v1")


class ChatClient:
    """Talks to one server and to no other: redirects are not followed, proxies of the environment not used."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        model: str,
        ignore_eos: bool = True,
        temperature: float = 0.0,
        timeout_s: float = 600.0,
        headers: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._session = session
        self._url = f"{base_url(url)}/v1/chat/completions"
        self._fields: dict[str, Any] = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
        self._fields |= {"temperature": temperature}
        if ignore_eos:
            self._fields["ignore_eos"] = True
        self._timeout_s = timeout_s
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._clock = clock or MonotonicClock()

    async def send(self, request: LoadRequest, due_s: float | None = None) -> RequestRecord:
        """Send, read to the end, and say how it went. `due_s` is when it should have left; never raises but for bugs."""
        messages = [{"role": "user", "content": request.content}]
        body = msgspec.json.encode({**self._fields, "messages": messages, "max_tokens": request.max_tokens})
        headers = self._headers
        if request.priority is not None:
            headers = {**headers, "X-Priority": request.priority.name}
        stream = _Stream()
        error: str | None = None
        sent_s = self._clock.now_s()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._exchange(body, headers, stream)
        except AnswerError as problem:
            error = problem.kind
        except TimeoutError:
            error = f"no complete answer in {self._timeout_s:g} s"
        except aiohttp.ClientConnectorError:
            error = "connection refused"
        except (aiohttp.ClientError, ConnectionError) as problem:
            error = f"connection broken ({type(problem).__name__})"
        usage = stream.usage
        details = usage.prompt_tokens_details
        return RequestRecord(
            index=request.index,
            start_s=sent_s if due_s is None else due_s,
            sent_s=sent_s,
            end_s=self._clock.now_s(),
            text_s=tuple(stream.text_s),
            prompt_tokens=usage.prompt_tokens,
            # A server that does not report usage gets one token per event: better than none.
            completion_tokens=usage.completion_tokens or len(stream.text_s),
            cached_tokens=(details.cached_tokens or 0) if details else 0,
            error=error,
            priority=request.priority,
        )

    async def _exchange(self, body: bytes, headers: Mapping[str, str], stream: _Stream) -> None:
        async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
            if response.status != 200:
                raise _http_problem(response.status, await response.content.read(4096))
            events = EventStream()
            async for chunk in response.content.iter_any():
                now_s = self._clock.now_s()
                for data in events.feed(chunk):
                    if data == b"[DONE]":
                        return
                    self._take(data, now_s, stream)
        raise AnswerError("stream ended without [DONE]")

    def _take(self, data: bytes, now_s: float, stream: _Stream) -> None:
        try:
            event = msgspec.json.decode(data, type=_Event)
        except msgspec.DecodeError as error:
            raise AnswerError("event is not a chat completion chunk", str(error)) from error
        if event.error is not None:
            raise AnswerError(f"error event {event.error.code or ''}".rstrip(), event.error.message)
        if event.usage is not None:
            stream.usage = event.usage
        if any(choice.delta.content or choice.delta.reasoning_content for choice in event.choices):
            stream.text_s.append(now_s)

    @staticmethod
    async def find_model(session: aiohttp.ClientSession, url: str, headers: Mapping[str, str] | None = None) -> str:
        """Id of the first model that the server lists. Raises ConfigurationError saying why there is none."""
        address = f"{base_url(url)}/v1/models"
        hint = "Start a server (foveal serve MODEL) or correct the address."
        try:
            timeout = aiohttp.ClientTimeout(total=10)
            async with session.get(address, headers=headers, timeout=timeout, allow_redirects=False) as response:
                body = await response.read()
        except TimeoutError:
            raise ConfigurationError(f"{address} did not answer within 10 s. Is the server still loading?") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ConfigurationError(f"nothing answers at {address} ({error}). {hint}") from None
        if response.status != 200:
            raise ConfigurationError(f"{address} answered {_http_problem(response.status, body)}. {hint}")
        try:
            return msgspec.json.decode(body, type=_ModelList).data[0].id
        except (msgspec.DecodeError, IndexError):
            raise ConfigurationError(
                f"{address} lists no model; it may be no OpenAI-compatible server. {hint}"
            ) from None


def _http_problem(status: int, body: bytes) -> AnswerError:
    try:
        info = msgspec.json.decode(body, type=_ErrorBody).error
    except msgspec.DecodeError:
        return AnswerError(f"HTTP {status}")
    return AnswerError(f"HTTP {status} {info.code or ''}".rstrip(), info.message)
