"""The transport of a connection, and flow control in both directions."""

from __future__ import annotations

import asyncio
from typing import cast

from foveal.gateway.wire.deadline import Deadline

__all__ = ["SocketFlow"]

Buffer = bytes | bytearray | memoryview


class SocketFlow(asyncio.BufferedProtocol):
    """What answers need of a connection (`AnswerSink`); the state machine on top decides what is read and when it ends."""

    __slots__ = ("_deadline", "_loop", "_read_paused", "_transport", "_write_paused", "_write_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._deadline = Deadline(loop, self._expired)
        self._read_paused = False
        self._write_paused = False
        self._write_waiter: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, data: Buffer) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def send_parts(self, parts: list[Buffer]) -> None:
        if not self._transport.is_closing():
            self._transport.writelines(parts)

    def drained(self) -> asyncio.Future[None] | None:
        """Something to wait for while the other side reads slower than we write; None if it keeps up."""
        if not self._write_paused or self._transport.is_closing():
            return None
        if self._write_waiter is None:
            self._write_waiter = self._loop.create_future()
        return self._write_waiter

    def break_off(self) -> None:
        self._transport.abort()

    def _expired(self) -> None:
        """The deadline has passed."""
        raise NotImplementedError

    def _wake_writer(self) -> None:
        waiter, self._write_waiter = self._write_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _pause_reading(self) -> None:
        if not self._read_paused:
            self._read_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._read_paused:
            self._read_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
