"""An OpenAI server made of bare sockets, which can misbehave in every way that real ones do. No model, no sleeping."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["FakeBackend", "Received", "fake_backend"]

Behaviour = Literal[
    "good",
    "frozen",  # takes requests and says nothing
    "silent_after_head",  # sends its head, then nothing
    "silent_mid_stream",  # two events, then nothing
    "dies_before_head",  # closes without a byte
    "dies_after_head",
    "dies_mid_stream",  # two events, then a reset
    "dies_mid_event",  # two events and half of a third
    "ends_without_done",  # a stream that looks complete and is not
    "garbage",  # bytes that are no HTTP
    "html",  # 200 with a web page
    "half_json",  # 200 with Content-Length and JSON that is cut off
    "busy",  # 503 with Retry-After
    "failing",  # 500
    "error_event",  # two events, then an error of its own
]


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class FakeBackend:
    """Answers with `words`, one event each. Change `behaviour` at any time; `hold` makes good answers wait for it."""

    name: str = "fake"
    behaviour: Behaviour = "good"
    words: tuple[str, ...] = ("the", "quick", "brown", "fox")
    healthy: bool = True
    model: str = "vlm"
    requests: list[Received] = field(default_factory=list)
    left: int = 0
    """Clients that closed the connection before their answer was complete."""
    port: int = 0

    def __post_init__(self) -> None:
        self.behaviours: dict[int, Behaviour] = {}
        """Number of the request (from 0) -> what happens to this one."""
        self.hold = asyncio.Event()
        self.hold.set()
        self.hold_after_words: int | None = None
        """None: `hold` is waited for before the head; a number: after so many words of a stream."""
        self.arrived = asyncio.Condition()
        self.num_open = 0
        """Requests being answered."""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 24)
        self.port = self._server.sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """As `kill -9`: nothing listens any more and all connections are reset."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        self._writers.clear()
        await asyncio.sleep(0)

    async def until_received(self, count: int) -> None:
        async with asyncio.timeout(30), self.arrived:
            await self.arrived.wait_for(lambda: len(self.requests) >= count)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; False closes the connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
        body = await self._body(reader, headers)
        if method == "GET":
            return await self._page(reader, writer, path)
        number = len(self.requests)
        async with self.arrived:
            self.requests.append(Received(path, headers, json.loads(body)))
            self.arrived.notify_all()
        self.num_open += 1
        # No client of ours sends the next request before it has the answer: what can be read is the end.
        watch = asyncio.create_task(reader.read(1))
        answer = asyncio.create_task(
            self._answer(writer, self.behaviours.get(number, self.behaviour), json.loads(body))
        )
        try:
            await asyncio.wait({watch, answer}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                self.left += 1
                return False
            return answer.result()
        finally:
            self.num_open -= 1
            for task in (watch, answer):
                task.cancel()
            await asyncio.gather(watch, answer, return_exceptions=True)

    @staticmethod
    async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
            return body
        return await reader.readexactly(int(headers.get("content-length", 0)))

    async def _page(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> bool:
        if self.behaviour == "frozen":
            await reader.read()  # until the other side gives up
            return False
        if path.startswith("/v1/models"):
            return await _whole(writer, 200, {"object": "list", "data": [{"id": self.model, "object": "model"}]})
        return await _whole(writer, 200 if self.healthy else 503, {"status": "ready" if self.healthy else "loading"})

    async def _answer(self, writer: asyncio.StreamWriter, behaviour: Behaviour, body: dict[str, Any]) -> bool:
        if behaviour == "good" and self.hold_after_words is None:
            await self.hold.wait()
        if behaviour in ("frozen", "silent_after_head", "silent_mid_stream", "dies_before_head"):
            return await self._silent(writer, behaviour)
        if behaviour == "garbage":
            writer.write(b"\x16\x03\x01 this is no HTTP at all\r\n\r\n")
            await writer.drain()
            return False
        if behaviour == "html":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<h1>Hello</h1>"[:-1])
            await writer.drain()
            return True
        if behaviour == "half_json":
            writer.write(
                b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n{"id":"a","choi'
            )
            await writer.drain()
            return False
        if behaviour in ("busy", "failing"):
            status = 503 if behaviour == "busy" else 500
            error = {"error": {"message": behaviour, "type": "server_error", "param": None, "code": behaviour}}
            return await _whole(writer, status, error, "retry-after: 7\r\n" if status == 503 else "")
        if body.get("stream"):
            return await self._stream(writer, behaviour, body)
        if behaviour.startswith("dies"):
            writer.transport.abort()
            return False
        text = " ".join(self.words)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        whole = {"id": "a", "object": "chat.completion", "model": self.model, "choices": [choice], "usage": self.usage}
        return await _whole(writer, 200, whole, f"x-backend: {self.name}\r\n")

    @property
    def usage(self) -> dict[str, int]:
        return {"prompt_tokens": 7, "completion_tokens": len(self.words), "total_tokens": 7 + len(self.words)}

    async def _silent(self, writer: asyncio.StreamWriter, behaviour: Behaviour) -> bool:
        if behaviour == "dies_before_head":
            writer.transport.abort()
            return False
        if behaviour != "frozen":
            writer.write(_stream_head(self.name))
            if behaviour == "silent_mid_stream":
                writer.write(b"".join(_chunked(_event(_delta(word))) for word in self.words[:2]))
            await writer.drain()
        await asyncio.Event().wait()
        return False

    async def _stream(self, writer: asyncio.StreamWriter, behaviour: Behaviour, body: dict[str, Any]) -> bool:
        writer.write(_stream_head(self.name))
        if behaviour == "dies_after_head":
            await writer.drain()
            writer.transport.abort()
            return False
        for number, word in enumerate(self.words):
            if number == self.hold_after_words:
                await writer.drain()
                await self.hold.wait()
            if number == 2 and behaviour in ("dies_mid_stream", "dies_mid_event", "ends_without_done", "error_event"):
                return await self._break_off(writer, behaviour)
            writer.write(_chunked(_event(_delta(word))))
            await writer.drain()
        writer.write(_chunked(_event(_delta("", "stop"))))
        if (body.get("stream_options") or {}).get("include_usage"):
            writer.write(_chunked(_event({"choices": [], "usage": self.usage})))
        writer.write(_chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _break_off(self, writer: asyncio.StreamWriter, behaviour: Behaviour) -> bool:
        if behaviour == "dies_mid_event":
            writer.write(_chunked(_event(_delta("never"))[:20]))
        if behaviour == "error_event":
            error = {"message": "out of memory", "type": "server_error", "param": None, "code": "engine_dead"}
            writer.write(_chunked(_event({"error": error})))
        if behaviour in ("ends_without_done", "error_event"):
            writer.write(b"0\r\n\r\n")
            await writer.drain()
            return True
        await writer.drain()
        writer.close()
        return False


def _stream_head(name: str) -> bytes:
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-backend: {name}\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    return head.encode()


def _delta(word: str, finish: str | None = None) -> dict[str, Any]:
    delta = {"content": word + " "} if finish is None else {}
    return {"id": "a", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def _event(payload: object) -> bytes:
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


def _chunked(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def _whole(writer: asyncio.StreamWriter, status: int, payload: object, extra: str = "") -> bool:
    body = json.dumps(payload).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{extra}content-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    return True


@asynccontextmanager
async def fake_backend(name: str = "fake", **changes: Any) -> AsyncIterator[FakeBackend]:
    """A running one on a free loopback port; killed when the block ends."""
    backend = FakeBackend(name, **changes)
    await backend.start()
    try:
        yield backend
    finally:
        backend.hold.set()
        await backend.kill()
