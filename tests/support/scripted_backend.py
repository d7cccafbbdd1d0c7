"""A backend on loopback whose every connection follows a script, byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from foveal.gateway.backends.backend import BackendSpec

__all__ = ["Conversation", "ScriptedBackend", "scripted_backend"]


class Conversation:
    """One connection, the backend's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader, self.writer, self.number = reader, writer, number

    async def read_request(self) -> tuple[bytes, bytes]:
        """Head and body. Raises asyncio.IncompleteReadError when the client is gone."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        return head, await self.reader.readexactly(length)

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    def answer(self, body: bytes = b"{}", status: bytes = b"200 OK", extra: bytes = b"") -> None:
        self.write(b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n%b" % (status, extra, len(body), body))

    async def gone(self) -> None:
        """Waits until the client has closed."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass


class ScriptedBackend:
    def __init__(self) -> None:
        self.port = 0
        self.connections = 0

    @property
    def spec(self) -> BackendSpec:
        return BackendSpec("scripted", f"http://127.0.0.1:{self.port}", "m")


@asynccontextmanager
async def scripted_backend(script: Callable[[Conversation], Awaitable[None]]) -> AsyncIterator[ScriptedBackend]:
    """Runs `script` for every connection; the connection ends with it."""
    backend = ScriptedBackend()
    tasks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        backend.connections += 1
        try:
            await script(Conversation(reader, writer, backend.connections))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    backend.port = server.sockets[0].getsockname()[1]
    try:
        yield backend
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
