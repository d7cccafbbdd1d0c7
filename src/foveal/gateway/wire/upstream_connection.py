"""One connection to a backend: writes a request uncopied, parses answers with httptools (llhttp), one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import httptools

from foveal.gateway.wire.deadline import Deadline
from foveal.gateway.wire.upstream import Stage, UpstreamError, UpstreamHead, UpstreamTimeouts
from foveal.gateway.wire.upstream_answer import UpstreamAnswer

__all__ = ["UpstreamConnection"]

Buffer = bytes | bytearray | memoryview

_MAX_HEAD = 64 << 10
_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"connection", b"keep-alive"))
_SMALL = 16 << 10


class UpstreamConnection(asyncio.Protocol):
    """`on_free(self)` once it may take the next request, `on_lost(self)` when it is gone."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        name: str,
        on_free: Callable[[UpstreamConnection], None],
        on_lost: Callable[[UpstreamConnection], None],
    ) -> None:
        self._loop = loop
        self._name = name
        """For messages: the backend's address."""
        self._on_free = on_free
        self._on_lost = on_lost
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._parser: httptools.HttpResponseParser | None = None
        self._answer: UpstreamAnswer | None = None
        self._deadline = Deadline(loop, self._expired)
        self._timeouts = UpstreamTimeouts()
        self._headers: list[tuple[bytes, bytes]] = []
        self._has_head = False
        self._head_bytes = 0
        self._framed = False
        """The answer says itself where it ends; otherwise the end of the connection ends it."""
        self._ended = False
        self._reusable = False
        self._sending = False
        self.closed = False
        self.uses = 0
        """Requests sent so far."""
        self.idle_since_s = 0.0

    def send(self, head: bytes, body: Sequence[Buffer], timeouts: UpstreamTimeouts) -> UpstreamAnswer:
        """Writes a request; the answer fills itself. The connection must be free."""
        self.uses += 1
        answer = self._answer = UpstreamAnswer(self._loop, self)
        self._timeouts = timeouts
        self._headers = []
        self._has_head = self._ended = self._framed = False
        self._head_bytes = 0
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        if not body:
            self._transport.write(head)
        elif len(body) == 1 and len(body[0]) < _SMALL:
            self._transport.write(head + body[0])
        else:
            self._transport.writelines([head, *body])
        self._deadline.after(timeouts.first_byte_s)
        return answer

    def close(self) -> None:
        self._deadline.close()
        self._transport.abort()

    @property
    def is_usable(self) -> bool:
        return not self.closed and not self._transport.is_closing()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            # Nobody asked: a broken peer, or the goodbye of a server that closes.
            self._transport.abort()
            return
        assert self._parser is not None
        answer.received = True
        if not self._has_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"it answered something that is not HTTP: {error}", "protocol")
            return
        except httptools.HttpParserUpgrade:
            self._fail("it wants to change the protocol", "protocol")
            return
        if self._ended:
            self._finish(answer, self._reusable)
        elif not self._has_head and self._head_bytes > _MAX_HEAD:
            self._fail(f"the head of its answer is larger than {_MAX_HEAD} bytes", "protocol")
        elif answer.has_news:
            if not answer.is_paused:
                self._deadline.after(self._timeouts.idle_s)
            answer.wake()

    def eof_received(self) -> bool:
        answer = self._answer
        if answer is not None and self._has_head and not self._framed:
            # An answer without a length ends with its connection.
            self._finish(answer, False)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._deadline.close()
        self._parser = None
        answer, self._answer = self._answer, None
        self._on_lost(self)
        if answer is not None:
            reason = f" ({exc})" if exc is not None else ""
            if self._sending:
                stage: Stage = "send"
            else:
                stage = "body" if answer.begun_body else "first_byte"
            answer.fail(UpstreamError(f"backend {self._name} broke off the connection{reason}", stage))

    def pause_writing(self) -> None:
        self._sending = True

    def resume_writing(self) -> None:
        # The time-out counts from the request's last byte: it is nearly out.
        self._sending = False
        if self._answer is not None and not self._has_head:
            self._deadline.after(self._timeouts.first_byte_s)

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._ended:
            # Its rest would become part of the next request's answer, which may be another tenant's.
            raise ValueError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _FRAMING:
            if name == b"content-length" or (name == b"transfer-encoding" and value.lower().endswith(b"chunked")):
                self._framed = True
        else:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        assert self._answer is not None
        status = self._parser.get_status_code()
        if status < 200:
            # 100 Continue, 103 Early Hints: the answer proper follows.
            return
        self._answer.head = UpstreamHead(status, tuple(self._headers))
        self._has_head = True
        if status in (204, 304):
            self._framed = True

    def on_body(self, data: bytes) -> None:
        assert self._answer is not None
        self._answer.add(data)

    def on_message_complete(self) -> None:
        if self._has_head:
            self._ended = True
            assert self._parser is not None
            # Here, since the parser forgets it once it is ready for the next message.
            self._reusable = self._parser.should_keep_alive()
        else:
            self._headers = []
            self._framed = False

    # What the answer calls (AnswerSource).

    def pause(self) -> None:
        self._deadline.clear()
        self._transport.pause_reading()

    def resume(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def expect_more(self) -> None:
        self._deadline.after(self._timeouts.idle_s)

    def give_up(self) -> None:
        self._answer = None
        self.close()

    def _finish(self, answer: UpstreamAnswer, reusable: bool) -> None:
        self._answer = None
        self._deadline.clear()
        answer.end()
        # An answer that came before the whole request was sent leaves the rest of it on the way.
        if reusable and not self._transport.get_write_buffer_size() and not self._transport.is_closing():
            self._transport.resume_reading()
            self._on_free(self)
        else:
            self._transport.abort()
        answer.wake()

    def _expired(self) -> None:
        if self._sending:
            self._fail("it does not take the request in", "send", timed_out=True)
        elif self._answer is not None and self._answer.begun_body:
            self._fail(f"it sent nothing for {self._timeouts.idle_s:g} s", "body", timed_out=True)
        else:
            self._fail(
                f"it did not begin to answer within {self._timeouts.first_byte_s:g} s", "first_byte", timed_out=True
            )

    def _fail(self, what: str, stage: Stage, timed_out: bool = False) -> None:
        answer, self._answer = self._answer, None
        self.close()
        if answer is not None:
            answer.fail(UpstreamError(f"backend {self._name} failed: {what}", stage, timed_out))
