"""Every route that is not hot goes to an ASGI application (admin, pages), over the same connections."""

from __future__ import annotations

import asyncio
from urllib.parse import unquote_to_bytes

from foveal.gateway.wire.incoming import ASGIApp, Message, Scope
from foveal.gateway.wire.request import Request

__all__ = ["run_app"]


async def run_app(app: ASGIApp, request: Request, server: tuple[str, int], scheme: str) -> None:
    """Calls the application for one request whose body is complete. ASGI 3, HTTP only: no lifespan, no WebSocket."""
    call = _Call(request)
    await app(_scope(request, server, scheme), call.receive, call.send)


def _scope(request: Request, server: tuple[str, int], scheme: str) -> Scope:
    head = request.head
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": f"1.{head.minor}",
        "server": server,
        "client": (request.peer, 0) if request.peer else None,
        "scheme": scheme,
        "method": head.method.decode("ascii"),
        "root_path": "",
        "path": unquote_to_bytes(head.path).decode("utf-8", "replace"),
        "raw_path": head.path,
        "query_string": head.query,
        "headers": list(head.headers.items()),
        "state": {},
    }


class _Call:
    """`receive` and `send` of one call. A client that leaves is told to the application, which may have to finish something."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._body_given = False
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._length: int | None = None
        request.on_disconnect = self._leave

    def _leave(self) -> None:
        if not self._gone.done():
            self._gone.set_result(None)

    async def receive(self) -> Message:
        if not self._body_given:
            self._body_given = True
            return {"type": "http.request", "body": bytes(self._request.body), "more_body": False}
        if not (self._request.finished or self._request.disconnected):
            await asyncio.shield(self._gone)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        request = self._request
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers, self._length = _own_headers(message.get("headers", ()))
            return
        if message["type"] != "http.response.body":
            raise RuntimeError(f"the application sent {message['type']}, which this server does not know")
        body = message.get("body", b"")
        more = message.get("more_body", False)
        if not request.started:
            if not more and (self._length is None or self._length == len(body)):
                request.respond(self._status, self._headers, body)
                self._leave()
                return
            request.start(self._status, self._headers, self._length)
        if more:
            await request.write(body)
        else:
            request.finish(body)
            self._leave()


def _own_headers(headers: object) -> tuple[list[tuple[bytes, bytes]], int | None]:
    """The application's fields without those that the wire writes, and its Content-Length."""
    kept: list[tuple[bytes, bytes]] = []
    length: int | None = None
    for name, value in headers:  # type: ignore[attr-defined]
        name = name.lower()
        if name == b"content-length":
            length = int(value)
        elif name not in (b"transfer-encoding", b"connection", b"date"):
            kept.append((name, value))
    return kept, length
