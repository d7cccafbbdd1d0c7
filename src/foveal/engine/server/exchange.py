"""One HTTP exchange as endpoints see it: send JSON or a stream, and be cancelled when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from starlette.types import Receive, Scope, Send

from foveal.engine.server.body import ClientLeftError
from foveal.protocol.sse import SSE_CONTENT_TYPE

__all__ = ["Exchange", "Headers"]

Headers = list[tuple[bytes, bytes]]

_STREAM_HEADERS: Headers = [
    (b"content-type", SSE_CONTENT_TYPE.encode()),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would collect events otherwise
]


class Exchange:
    """Wraps the three ASGI arguments of one request."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.body = b""
        self._receive = receive
        self._send = send
        self._complete = False

    async def send_json(self, payload: object, headers: Headers, status: int = 200) -> None:
        body = msgspec.json.encode(payload)
        length = (b"content-length", str(len(body)).encode())
        all_headers = [(b"content-type", b"application/json"), length, *headers]
        await self._send({"type": "http.response.start", "status": status, "headers": all_headers})
        self._complete = True
        await self._send({"type": "http.response.body", "body": body})

    async def start_stream(self, headers: Headers) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": [*_STREAM_HEADERS, *headers]})

    async def send_events(self, events: bytes) -> None:
        """Waits while the client reads slower than we write."""
        await self._send({"type": "http.response.body", "body": events, "more_body": True})

    async def end_stream(self, events: bytes) -> None:
        self._complete = True
        await self._send({"type": "http.response.body", "body": events, "more_body": False})

    @asynccontextmanager
    async def cancelled_on_disconnect(self) -> AsyncIterator[None]:
        """Cancels the block if the client goes away; then raises ClientLeftError. The body must have been read."""
        task = asyncio.current_task()
        assert task is not None
        left = False

        async def watch() -> None:
            nonlocal left
            while (await self._receive())["type"] != "http.disconnect":
                pass
            # A server also reports a disconnect once the response is complete.
            if not self._complete:
                left = True
                task.cancel()

        watcher = asyncio.create_task(watch())
        try:
            yield
        except asyncio.CancelledError:
            if not left:
                raise
            task.uncancel()
            raise ClientLeftError from None
        finally:
            watcher.cancel()
