"""Writing one answer: whole or streamed, with back-pressure, never half an answer that looks whole."""

from __future__ import annotations

import asyncio
from typing import Protocol

from foveal.gateway.wire.answer_head import answer_head
from foveal.gateway.wire.incoming import Headers

__all__ = ["Answer", "AnswerSink"]

Buffer = bytes | bytearray | memoryview

_JOIN_BELOW = 16 << 10
"""Smaller pieces are copied together: one plain write is cheaper than a gathering one."""
_CLOSE = b"connection: close\r\n"
_KEEP_ALIVE = b"connection: keep-alive\r\n"


class AnswerSink(Protocol):
    """What an answer needs of its connection."""

    def send(self, data: Buffer) -> None: ...

    def send_parts(self, parts: list[Buffer]) -> None: ...

    def drained(self) -> asyncio.Future[None] | None:
        """Something to wait for while the client reads slower than we write; None if it keeps up."""
        ...

    def break_off(self) -> None:
        """The connection ends here and now."""
        ...


class Answer:
    """In one of three states: not started, started, finished. `keep_alive` may be taken away until the head is sent."""

    __slots__ = (
        "_chunked",
        "_due",
        "_held_head",
        "_sink",
        "_without_body",
        "disconnected",
        "finished",
        "keep_alive",
        "minor",
        "started",
    )

    def __init__(self, sink: AnswerSink, method: bytes, minor: int, keep_alive: bool) -> None:
        self._sink = sink
        self._without_body = method == b"HEAD"
        self.minor = minor
        self.keep_alive = keep_alive
        self.disconnected = False
        self.started = False
        self.finished = False
        self._held_head = b""
        self._chunked = False
        self._due = -1
        """Bytes that the announced length still owes; -1 if none was announced."""

    def respond(self, status: int, headers: Headers, body: Buffer) -> None:
        if self.disconnected:
            return
        self._begin()
        head = answer_head(status, headers, self._connection() + b"content-length: %d\r\n" % len(body))
        self.finished = True
        if self._without_body or not body:
            self._sink.send(head)
        elif len(body) < _JOIN_BELOW:
            self._sink.send(head + body)
        else:
            self._sink.send_parts([head, body])

    def start(self, status: int, headers: Headers, content_length: int | None = None) -> None:
        if self.disconnected:
            return
        self._begin()
        if status in (204, 304):
            self._without_body = True
            framing = b""
        elif content_length is not None:
            self._due = content_length
            framing = b"content-length: %d\r\n" % content_length
        elif self.minor:
            self._chunked = True
            framing = b"transfer-encoding: chunked\r\n"
        else:
            # HTTP/1.0 knows no chunks: the end of the connection is the end of the answer.
            self.keep_alive = False
            framing = b""
        # Held back until the first bytes follow: one write and one packet instead of two.
        self._held_head = answer_head(status, headers, self._connection() + framing)

    async def write(self, chunk: Buffer) -> None:
        if self.disconnected:
            return
        self._write(chunk, last=False)
        waiter = self._sink.drained()
        if waiter is not None:
            await waiter

    def finish(self, last: Buffer = b"") -> None:
        if self.disconnected or (self.finished and not last):
            return
        self._write(last, last=True)
        self.finished = True
        if self._due > 0 and not self._without_body:
            # Less than was announced: the client must not take it for whole.
            self._sink.break_off()

    def abort(self) -> None:
        self.finished = True
        self._sink.break_off()

    def _begin(self) -> None:
        if self.started:
            raise RuntimeError("this request was answered before")
        self.started = True

    def _connection(self) -> bytes:
        if not self.keep_alive:
            return _CLOSE
        return b"" if self.minor else _KEEP_ALIVE

    def _write(self, chunk: Buffer, last: bool) -> None:
        if not self.started or self.finished:
            raise RuntimeError("an answer is written between start and finish")
        size = len(chunk)
        if self._due >= 0 and size:
            self._due -= size
            if self._due < 0:
                self._sink.break_off()
                raise RuntimeError("the answer is longer than its announced length")
        head, self._held_head = self._held_head, b""
        if self._without_body or not (size or head or last):
            if head:
                self._sink.send(head)
            return
        if not self._chunked:
            before, after = head, b""
        else:
            before = head + b"%x\r\n" % size if size else head
            after = (b"\r\n" if size else b"") + (b"0\r\n\r\n" if last else b"")
        if size < _JOIN_BELOW:
            if data := b"".join((before, chunk, after)):
                self._sink.send(data)
        else:
            self._sink.send_parts([part for part in (before, chunk, after) if part])
