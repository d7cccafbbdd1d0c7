"""One client connection, as a state machine fed by the event loop.

    HEAD -> (WAITING for the byte budget) -> BODY or CHUNKS -> BUSY -> HEAD ...        any -> DISCARD -> closed

The kernel writes a body straight into its final buffer: `get_buffer` hands out the part still missing, so a 4 MB body costs a
few system calls and no copy of ours.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from typing import TYPE_CHECKING

from foveal.gateway.request.view import Endpoint
from foveal.gateway.wire.answer_head import CONTINUE, error_body
from foveal.gateway.wire.asgi import run_app
from foveal.gateway.wire.budget import ByteBudget, Reservation
from foveal.gateway.wire.chunked import ChunkedBody
from foveal.gateway.wire.head import HeadError, RequestHead
from foveal.gateway.wire.head_buffer import HeadBuffer
from foveal.gateway.wire.incoming import Refusal
from foveal.gateway.wire.request import HotRequest, Request
from foveal.gateway.wire.socket_flow import SocketFlow

if TYPE_CHECKING:
    from foveal.gateway.wire.hot_server import ServerCore

__all__ = ["HOT_ROUTES", "Connection"]

Buffer = bytes | bytearray | memoryview

HOT_ROUTES: dict[bytes, Endpoint] = {b"/v1/chat/completions": "chat", b"/v1/completions": "completion"}

_CHUNK_STEP = 256 << 10
"""A chunked body does not say how large it gets: it reserves the budget in such steps."""

_log = logging.getLogger(__name__)


class _State(enum.Enum):
    HEAD = 0
    WAITING = 1
    BODY = 2
    CHUNKS = 3
    BUSY = 4
    DISCARD = 5


# As module globals: an attribute of an enum costs a descriptor call, once per read of a socket.
_HEAD, _WAITING, _BODY, _CHUNKS, _BUSY, _DISCARD = _State
_NO_BODY = bytearray()


class Connection(SocketFlow):
    """Server side. Owns the current request and its share of the budget."""

    __slots__ = (
        "_ahead",
        "_body_view",
        "_chunks",
        "_claim",
        "_core",
        "_got",
        "_heads",
        "_peer",
        "_request",
        "_state",
        "_task",
        "_watched",
    )

    def __init__(self, core: ServerCore) -> None:
        super().__init__(core.loop)
        self._core = core
        self._state = _HEAD
        self._heads = HeadBuffer()
        self._ahead = bytearray()
        """What the client sent before its turn (pipelining)."""
        self._request: Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._body_view: memoryview = memoryview(b"")
        self._got = 0
        self._watched = 0
        """How much of the body was there when its deadline was set."""
        self._chunks: ChunkedBody | None = None
        self._claim: Reservation | None = None
        self._peer = ""

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        core = self._core
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else ""
        core.prepare_socket(transport)
        core.connections.add(self)
        if len(core.connections) > core.config.max_connections:
            self._refuse_message(503, "too many connections; try again later", "too_many_connections")
            return
        self._deadline.after(core.config.keep_alive_s)

    def get_buffer(self, sizehint: int) -> Buffer:
        if self._state is _BODY:
            return self._body_view[self._got :]
        # The view, not the bytearray: asyncio's TLS layer slices what it gets, and a slice of a bytearray is a copy.
        return self._core.scratch_view

    def buffer_updated(self, nbytes: int) -> None:
        state = self._state
        if state is _BODY:
            got = self._got = self._got + nbytes
            if got == len(self._body_view):
                self._body_complete()
        elif state is _HEAD and not self._ahead:
            self._read_heads(self._core.scratch, nbytes)
        elif state is _CHUNKS:
            self._feed_chunks(self._core.scratch_view[:nbytes])
        elif state is not _DISCARD:
            self._keep_ahead(self._core.scratch_view[:nbytes])

    def eof_received(self) -> bool:
        # A client that closes its sending side is taken to have left, as by most servers: nothing could tell us later.
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._core.connections.discard(self)
        self._deadline.close()
        self._body_view = memoryview(b"")
        self._state = _DISCARD
        self._wake_writer()
        request = self._request
        if request is not None:
            request.disconnected = True
            if self._task is None:
                self._release(request)
            elif request.on_disconnect is not None and not request.finished:
                # After the answer only book-keeping is left, which must not be cut short.
                request.on_disconnect()
        if self._core.on_change is not None:
            self._core.on_change()

    def pause_writing(self) -> None:
        self._write_paused = True
        self._deadline.after(self._core.config.send_stall_s)

    def resume_writing(self) -> None:
        self._write_paused = False
        self._wake_writer()
        if self._state is _HEAD:
            self._await_head()
        elif self._state is _DISCARD:
            self._deadline.after(self._core.config.linger_s)
        else:
            self._deadline.clear()

    # What the server calls.

    @property
    def is_idle(self) -> bool:
        return self._request is None and not self._heads and not self._ahead

    def announce_close(self) -> None:
        """The answer now being made will be the connection's last, if its head is not out yet."""
        if self._request is not None:
            self._request.keep_alive = self._request.keep_alive and self._request.started

    def close_if_idle(self) -> None:
        if self.is_idle and self._state is _HEAD:
            self._close_gently()

    def abort(self) -> None:
        request = self._request
        if request is not None and request.on_disconnect is not None:
            request.on_disconnect()
        self._transport.abort()

    # Heads.

    def _read_heads(self, data: bytearray, end: int) -> None:
        """Data in HEAD state: `data[:end]`."""
        try:
            found = self._heads.take(data, end, self._core.config.max_head_bytes)
            if found is None:
                if len(self._heads) == end:
                    # Its first bytes: from here on it may take so long and no longer.
                    self._deadline.after(self._core.config.head_s)
                return
            head = self._core.heads.read(found[0])
        except HeadError as error:
            self._refuse_head(error)
            return
        self._begin(head, found[1])

    def _begin(self, head: RequestHead, rest: memoryview) -> None:
        """The head is good. `rest` is what came after it in the same read."""
        core = self._core
        self._deadline.clear()
        endpoint = HOT_ROUTES.get(head.path) if head.method == b"POST" else None
        keep_alive = head.keep_alive and not core.draining
        request: Request
        if endpoint is not None:
            request = HotRequest(self, head, self._peer, time.monotonic(), keep_alive, endpoint)
            max_body = core.config.max_body_bytes
        else:
            request = Request(self, head, self._peer, time.monotonic(), keep_alive)
            max_body = core.config.max_app_body_bytes
        self._request = request
        length = head.length
        if length > max_body:
            self._refuse(
                413,
                f"the body has {length} bytes, the limit is {max_body}; send smaller or fewer images",
                "body_too_large",
                rest,
            )
            return
        if endpoint is not None and core.check is not None:
            refusal = core.check(head.headers)
            if refusal is not None:
                self._refuse_with(refusal, "check", rest)
                return
        if head.chunked:
            self._chunks = ChunkedBody(max_body)
            length = min(_CHUNK_STEP, max_body)
        if not length:
            self._body_complete_with(rest)
            return
        is_small = length <= core.largest_small and not head.chunked
        budget = request.budget = core.small_budget if is_small else core.budget
        if budget.try_reserve(length):
            request.reserved = length
            self._receive(rest)
        else:
            self._keep_ahead(rest)
            self._wait_for_room(budget, length)

    def _wait_for_room(self, budget: ByteBudget, num_bytes: int) -> None:
        self._state = _WAITING
        self._pause_reading()
        self._deadline.after(self._core.config.budget_wait_s)
        self._claim = budget.wait(num_bytes, self._granted)

    def _granted(self) -> None:
        """The budget has room for us; called from within another connection's release."""
        request = self._request
        assert request is not None
        assert self._claim is not None
        request.reserved += self._claim.num_bytes
        self._claim = None
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._state is not _WAITING:
            # The client left meanwhile; what was granted is given back with the request.
            return
        self._deadline.clear()
        ahead, self._ahead = self._ahead, bytearray()
        self._receive(memoryview(ahead))
        self._resume_reading()

    # Bodies.

    def _receive(self, rest: memoryview) -> None:
        """Room is reserved: take in the body, of which `rest` is here already."""
        request = self._request
        assert request is not None
        core = self._core
        length = request.head.length
        have = len(rest)
        if request.head.expects_continue and not have:
            self.send(CONTINUE)
        request.head.expects_continue = False
        if self._chunks is not None:
            self._state = _CHUNKS
            self._watched = len(self._chunks.body)
            self._deadline.after(core.config.body_s)
            self._feed_chunks(rest)
            return
        if have >= length:
            request.body = bytearray(rest[:length])
            self._body_complete_with(rest[length:])
            return
        request.body = core.buffers.take(length)
        self._body_view = view = memoryview(request.body)
        view[:have] = rest
        self._got = have
        self._state = _BODY
        self._watched = have
        self._deadline.after(core.config.body_s)

    def _feed_chunks(self, data: memoryview) -> None:
        request, chunks = self._request, self._chunks
        assert request is not None
        assert chunks is not None
        try:
            used = chunks.feed(data)
        except HeadError as error:
            self._refuse(error.status, str(error), "bad_chunks" if error.status == 400 else "body_too_large")
            return
        if chunks.complete:
            request.body = chunks.body
            self._chunks = None
            self._body_complete_with(data[used:])
            return
        missing = len(chunks.body) - request.reserved
        if missing <= 0:
            return
        step = max(missing, _CHUNK_STEP)
        budget = request.budget
        assert budget is not None
        if budget.try_reserve(step):
            request.reserved += step
        else:
            self._wait_for_room(budget, step)

    def _body_complete_with(self, rest: memoryview) -> None:
        if rest:
            self._keep_ahead(rest)
        self._body_complete()

    def _body_complete(self) -> None:
        request = self._request
        assert request is not None
        self._body_view = memoryview(b"")
        self._deadline.clear()
        self._state = _BUSY
        request.body_done_s = time.monotonic()
        self._core.busy += 1
        self._task = self._loop.create_task(self._serve(request))

    # The request's life.

    async def _serve(self, request: Request) -> None:
        core = self._core
        try:
            if request.disconnected:
                return
            if isinstance(request, HotRequest):
                # Not before: a task that is cancelled before its first step never gets to its `finally`.
                assert self._task is not None
                request.on_disconnect = self._task.cancel
                await core.handler(request)
            else:
                await run_app(core.app, request, core.address, core.scheme)
            if not (request.finished or request.disconnected):
                _log.error("the handler of %s returned without a whole answer", request.path)
                self._fail(request)
        except asyncio.CancelledError:
            if not request.disconnected:
                # Cancelled from outside: a shutdown. A client must not wait for ever.
                self._transport.abort()
        except Exception:
            _log.exception("the handler of %s failed", request.path)
            self._fail(request)
        finally:
            core.busy -= 1
            self._task = None
            self._after(request)
            if core.on_change is not None:
                core.on_change()

    def _fail(self, request: Request) -> None:
        if request.finished or request.disconnected:
            return
        if request.started:
            request.abort()
        else:
            request.respond(500, _JSON, error_body(500, "the gateway failed; this is a bug", "internal_error"))

    def _after(self, request: Request) -> None:
        """The handler is done with the request: give back what it held, and read the next one."""
        request.on_disconnect = None
        self._release(request)
        if request.disconnected or self._transport.is_closing():
            return
        if not request.keep_alive:
            if self._ahead or self._read_paused:
                self._close_gently()
            else:
                self._close()
            return
        self._state = _HEAD
        if self._write_paused:
            # Nothing more for a client that does not take what it asked for.
            self._pause_reading()
        else:
            self._await_head()

    def _await_head(self) -> None:
        """Between requests: go on with what was sent ahead, or wait."""
        self._deadline.after(self._core.config.keep_alive_s)
        if self._ahead:
            # Not at once: a hundred requests sent ahead would be a hundred frames deep.
            self._loop.call_soon(self._read_ahead)
        else:
            self._resume_reading()

    def _read_ahead(self) -> None:
        if self._state is _HEAD:
            ahead, self._ahead = self._ahead, bytearray()
            self._read_heads(ahead, len(ahead))
            if self._state in (_HEAD, _BODY, _CHUNKS):
                self._resume_reading()

    def _release(self, request: Request) -> None:
        self._request = None
        self._chunks = None
        budget = request.budget
        if self._claim is not None and budget is not None:
            claim, self._claim = self._claim, None
            budget.cancel(claim)
        body, request.body = [request.body], _NO_BODY
        self._core.buffers.give_back(body)
        if request.reserved and budget is not None:
            reserved, request.reserved = request.reserved, 0
            budget.release(reserved)

    # Refusals: answers that the wire gives itself.

    def _refuse_head(self, error: HeadError) -> None:
        self._heads.clear()
        self._refuse_message(error.status, str(error), "bad_request" if error.status == 400 else "head_refused")

    def _refuse_message(self, status: int, message: str, code: str) -> None:
        """Without a request: what came cannot be read, so nothing after it can."""
        head = RequestHead()
        head.method, head.minor, head.path, head.query, head.headers = b"GET", 1, b"", b"", {}
        head.length, head.chunked, head.keep_alive, head.expects_continue = 0, False, False, False
        self._request = Request(self, head, self._peer, time.monotonic(), keep_alive=False)
        self._refuse(status, message, code)

    def _refuse(self, status: int, message: str, code: str, rest: memoryview | None = None) -> None:
        headers = ((b"retry-after", b"1"),) if status == 503 else ()
        self._refuse_with(Refusal(status, error_body(status, message, code), headers), code, rest)

    def _refuse_with(self, refusal: Refusal, reason: str, rest: memoryview | None = None) -> None:
        request = self._request
        assert request is not None
        self._core.refused(refusal.status, reason)
        head = request.head
        whole = rest is not None and not head.chunked and len(rest) >= head.length
        if not whole:
            request.keep_alive = False
        request.respond(refusal.status, (*_JSON, *refusal.headers), refusal.body)
        if whole and request.keep_alive:
            assert rest is not None
            # The body came along with the head: the connection is where the next request starts.
            if len(rest) > head.length:
                self._ahead += rest[head.length :]
            self._after(request)
            return
        self._release(request)
        self._close_gently()

    def _close(self) -> None:
        """Everything was read: what is still to be sent is sent, then the connection ends."""
        self._state = _DISCARD
        self._deadline.after(self._core.config.send_stall_s)
        self._transport.close()

    def _close_gently(self) -> None:
        """Closing a socket with unread bytes resets it, and the client may never see the answer: read and drop them first."""
        if self._transport.is_closing():
            return
        self._state = _DISCARD
        self._body_view = memoryview(b"")
        self._ahead = bytearray()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        if not self._write_paused:
            self._deadline.after(self._core.config.linger_s)
        self._resume_reading()

    # Time and flow.

    def _expired(self) -> None:
        if self._state is _DISCARD and not self._write_paused and self._transport.get_write_buffer_size():
            # Lingering is over; what is left to send goes out, or the stall limit ends it.
            self._close()
        elif self._transport.is_closing() or self._write_paused or self._state in (_DISCARD, _BUSY):
            self._transport.abort()
        elif self._state is _WAITING:
            self._refuse(503, "the gateway holds as many request bytes as it may; try again later", "bytes_in_flight")
        elif self._state is _HEAD and not self._heads:
            self._transport.close()
        elif self._state is _HEAD:
            self._refuse_head(HeadError(408, f"the request head took longer than {self._core.config.head_s:g} s"))
        else:
            self._judge_pace()

    def _judge_pace(self) -> None:
        """A period of reading a body is over: it must have grown enough to be given another."""
        config = self._core.config
        now = len(self._chunks.body) if self._chunks is not None else self._got
        if now - self._watched < config.body_s * config.min_body_rate:
            self._refuse(
                408,
                f"{now - self._watched} bytes of the body came in {config.body_s:g} s; it must be complete by then or come "
                f"with {config.min_body_rate} bytes a second",
                "slow_body",
            )
            return
        self._watched = now
        self._deadline.after(config.body_s)

    def _keep_ahead(self, data: memoryview) -> None:
        self._ahead += data
        if len(self._ahead) >= self._core.config.max_pipelined_bytes:
            self._pause_reading()


_JSON = ((b"content-type", b"application/json"),)
