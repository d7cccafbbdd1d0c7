"""Server connections over fake sockets and a manual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httptools

from foveal.gateway.wire.connection import Connection
from foveal.gateway.wire.hot_server import ServerCore
from foveal.gateway.wire.incoming import Handler, HeadCheck, Incoming
from foveal.gateway.wire.settings import WireConfig
from support.fake_transport import FakeTransport
from support.manual_loop import ManualLoop

__all__ = ["Answers", "WireHarness", "echo_app", "echo_length", "request"]


def request(
    body: bytes = b"",
    path: bytes = b"/v1/chat/completions",
    method: bytes = b"POST",
    chunk: int = 0,
    extra: bytes = b"",
) -> bytes:
    """Bytes of a request; chunked in pieces of `chunk` bytes if that is above 0."""
    head = b"%b %b HTTP/1.1\r\nHost: a\r\n%b" % (method, path, extra)
    if not chunk:
        return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    pieces = [body[at : at + chunk] for at in range(0, len(body), chunk)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


async def echo_length(incoming: Incoming) -> None:
    incoming.respond(
        200, ((b"x-endpoint", incoming.endpoint.encode()),), b"%d:" % len(incoming.body) + bytes(incoming.body[:10])
    )


async def echo_app(scope: Any, receive: Any, send: Any) -> None:
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send(
        {"type": "http.response.body", "body": f"{scope['method']} {scope['path']} {len(message['body'])}".encode()}
    )


@dataclass
class Answers:
    """Reads what a server wrote: (status, headers, body) of each whole answer."""

    whole: list[tuple[int, Mapping[bytes, bytes], bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._body = b""
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> Answers:
        self._parser.feed_data(data)
        return self

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        self.whole.append((self._parser.get_status_code(), self._headers, self._body))
        self._headers, self._body = {}, b""

    @property
    def statuses(self) -> list[int]:
        return [status for status, _, _ in self.whole]

    @property
    def bodies(self) -> list[bytes]:
        return [body for _, _, body in self.whole]


class WireHarness:
    """Make it inside a running loop."""

    def __init__(
        self,
        handler: Handler = echo_length,
        config: WireConfig | None = None,
        check: HeadCheck | None = None,
        app: Any = echo_app,
    ) -> None:
        self.loop = ManualLoop(asyncio.get_running_loop())
        loop: Any = self.loop
        self.core = ServerCore(loop, handler, app, config or WireConfig(), check, None)
        self.core.address = ("127.0.0.1", 80)

    def connect(self, largest_read: int = 1 << 20) -> FakeTransport:
        return FakeTransport(Connection(self.core), largest_read).open()

    async def settle(self) -> None:
        """Lets everything run that can run without the clock moving."""
        for _ in range(30):
            await asyncio.sleep(0)

    async def ask(self, client: FakeTransport, data: bytes) -> Answers:
        client.feed(data)
        await self.settle()
        return Answers().feed(client.take_written())

    def assert_nothing_held(self) -> None:
        for budget in (self.core.budget, self.core.small_budget):
            assert budget.used == 0
            assert budget.num_waiting == 0
        assert self.core.busy == 0
