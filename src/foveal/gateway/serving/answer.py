"""A backend's answer whose first byte is there: from here on nothing is tried elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass

from foveal.gateway.backends.backend import BackendSpec
from foveal.gateway.wire.upstream import UpstreamError, UpstreamHead, UpstreamResponse

__all__ = ["Answer", "check_first", "check_head", "check_whole", "is_event_stream", "read_whole"]

MAX_WHOLE_BYTES = 16 << 20
"""Answers that are no stream are held until they are whole, so that a backend that breaks off costs the client nothing."""

_ERROR_EVENT = re.compile(rb'data:\s*\{\s*"error"')
_SERVER_TIMING = b"server-timing"
_CONTENT_TYPE = b"content-type"


@dataclass(slots=True)
class Answer:
    backend: BackendSpec
    head: UpstreamHead
    response: UpstreamResponse
    whole: bytes | None
    """The complete body of an answer that is no stream; None for a stream."""
    first: bytes = b""
    """What has come of a stream so far."""

    @property
    def server_timing(self) -> bytes:
        return header(self.head, _SERVER_TIMING)


def header(head: UpstreamHead, name: bytes) -> bytes:
    """The first one of that name, b"" without."""
    for key, value in head.headers:
        if key == name:
            return value
    return b""


def is_event_stream(head: UpstreamHead) -> bool:
    return header(head, _CONTENT_TYPE).startswith(b"text/event-stream")


def check_head(head: UpstreamHead, wants_stream: bool) -> None:
    """Raises UpstreamError (protocol) for what no OpenAI server answers: an HTML page, a redirect, a stream unasked for."""
    kind = header(head, _CONTENT_TYPE)
    allowed = kind.startswith(b"application/json") or (
        wants_stream and head.status == 200 and kind.startswith(b"text/event-stream")
    )
    if not allowed or not (head.status == 200 or head.status >= 400):
        raise UpstreamError(f"the backend answered {head.status} with content-type {kind[:80]!r}", "protocol")


def check_first(first: bytes) -> None:
    """Raises UpstreamError (protocol) for a stream that begins with no event, or with an error."""
    start = first.lstrip()
    if start and not start.startswith((b"data:", b":", b"event:", b"id:", b"retry:")):
        raise UpstreamError(f"the backend's stream holds no events; it begins with {first[:40]!r}", "protocol")
    if _ERROR_EVENT.match(start):
        raise UpstreamError("the backend's stream begins with an error", "protocol")


async def read_whole(response: UpstreamResponse) -> bytes:
    """The complete body. Raises UpstreamError if it breaks off or is larger than an answer can be."""
    if response.complete:
        return response.take()
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.chunks():
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_WHOLE_BYTES:
            raise UpstreamError(f"an answer without stream has more than {MAX_WHOLE_BYTES:,} bytes", "protocol")
    return b"".join(chunks)


def check_whole(body: bytes) -> None:
    """Raises UpstreamError (protocol) for a body that cannot be a JSON object."""
    text = body.strip()
    if not (text.startswith(b"{") and text.endswith(b"}")):
        raise UpstreamError(f"the backend's answer is no JSON object; it begins with {body[:40]!r}", "protocol")
