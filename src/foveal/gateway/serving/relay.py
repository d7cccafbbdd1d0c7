"""From the backend's first byte to the client's last one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from foveal.gateway.serving.event_boundary import EventBoundary
from foveal.gateway.serving.usage_tail import UsageTail
from foveal.gateway.wire.upstream import UpstreamError

__all__ = ["BackendStreamError", "relay_stream"]


class BackendStreamError(UpstreamError):
    """The backend itself reported an error inside its stream: the client has it already."""


class _Writer(Protocol):
    async def write(self, chunk: bytes) -> None: ...


async def relay_stream(first: bytes, chunks: AsyncIterator[bytes], client: _Writer, tail: UsageTail) -> None:
    """`first` is what has come so far. Writes whole events as they come, and waits while the client reads slower.

    Raises UpstreamError (stage body) if the stream broke off or ended without its end mark, BackendStreamError if it ended
    with an error of the backend's own. The client then has whole events only.
    """
    boundary = EventBoundary()
    if first:
        tail.feed(first)
        whole = boundary.whole(first)
        if whole:
            await client.write(whole)
    async for chunk in chunks:
        tail.feed(chunk)
        whole = boundary.whole(chunk)
        if whole:
            await client.write(whole)
    rest = boundary.rest()
    is_done, has_error = tail.is_done, tail.has_error
    if rest and (is_done or has_error):
        # A server that ends its last event with one newline: complete it, since clients wait for the blank line.
        await client.write(rest.rstrip() + b"\n\n")
    if is_done and not has_error:
        return
    if has_error:
        raise BackendStreamError("the backend ended its stream with an error", "body")
    raise UpstreamError("the backend's stream ended without [DONE]", "body")
