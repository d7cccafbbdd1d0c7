"""The listening side: hot routes to one handler, everything else to an ASGI application, over one kind of connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from foveal.gateway.wire.budget import ByteBudget, split_budget
from foveal.gateway.wire.buffers import BodyBuffers
from foveal.gateway.wire.connection import Connection
from foveal.gateway.wire.head import HeadReader
from foveal.gateway.wire.incoming import ASGIApp, Handler, HeadCheck
from foveal.gateway.wire.settings import WireConfig

__all__ = ["HotServer", "ServerCore", "WireStats"]

_SCRATCH = 64 << 10
_KEPT_BUFFERS = 64 << 20


@dataclass(frozen=True, slots=True)
class WireStats:
    """A snapshot, for gauges."""

    connections: int
    busy: int
    """Requests with their handler."""
    body_bytes: int
    """Reserved for bodies that are being read or served."""
    peak_body_bytes: int
    """Largest since the start; of small and of large bodies, which need not have come together."""
    waiting: int
    """Requests that wait for room, unread."""
    refusals: dict[tuple[int, str], int]
    """Answers the wire gave itself, by (status, reason), since the start."""


class ServerCore:
    """What all connections share."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handler: Handler,
        app: ASGIApp,
        config: WireConfig,
        check: HeadCheck | None,
        on_refusal: Callable[[int, str], None] | None,
    ) -> None:
        self.loop = loop
        self.handler = handler
        self.app = app
        self.config = config
        self.check = check
        self.connections: set[Connection] = set()
        large, small, self.largest_small = split_budget(config.max_bytes_in_flight)
        self.budget, self.small_budget = ByteBudget(large), ByteBudget(small)
        self.buffers = BodyBuffers(min(_KEPT_BUFFERS, config.max_bytes_in_flight // 2))
        self.heads = HeadReader(config.max_headers)
        # One for all: a read is parsed before the loop starts the next one.
        self.scratch = bytearray(_SCRATCH)
        self.scratch_view = memoryview(self.scratch)
        self.address = ("", 0)
        self.scheme = "http"
        self.draining = False
        self.busy = 0
        self.refusals: Counter[tuple[int, str]] = Counter()
        self.on_change: Callable[[], None] | None = None
        """Called when a request or a connection has ended; set while somebody waits for the last one."""
        self._on_refusal = on_refusal

    def refused(self, status: int, reason: str) -> None:
        self.refusals[status, reason] += 1
        if self._on_refusal is not None:
            self._on_refusal(status, reason)

    def prepare_socket(self, transport: asyncio.BaseTransport) -> None:
        """A client that vanished without a word is noticed within two minutes, also while its answer is being made."""
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
            return
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
                if hasattr(socket, option):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


class HotServer:
    """Start, drain, close. See `incoming.py` for what the handler gets."""

    def __init__(
        self,
        handler: Handler,
        app: ASGIApp,
        config: WireConfig,
        check: HeadCheck | None = None,
        on_refusal: Callable[[int, str], None] | None = None,
    ) -> None:
        self._handler, self._app, self._config = handler, app, config
        self._check, self._on_refusal = check, on_refusal
        self._core: ServerCore | None = None
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int, ssl_context: ssl.SSLContext | None = None) -> None:
        """Listens. `port` 0 takes a free one. Raises OSError."""
        loop = asyncio.get_running_loop()
        core = ServerCore(loop, self._handler, self._app, self._config, self._check, self._on_refusal)
        self._core = core
        self._server = await loop.create_server(
            lambda: Connection(core),
            host,
            port,
            backlog=self._config.backlog,
            ssl=ssl_context,
            ssl_handshake_timeout=self._config.head_s if ssl_context is not None else None,
        )
        core.address = (host, self._server.sockets[0].getsockname()[1])
        core.scheme = "http" if ssl_context is None else "https"

    @property
    def port(self) -> int:
        return self._started.address[1]

    @property
    def budget(self) -> ByteBudget:
        """Of the bytes in flight; what else a request holds in memory is reserved in it, too."""
        return self._started.budget

    @property
    def stats(self) -> WireStats:
        core = self._started
        return WireStats(
            connections=len(core.connections),
            busy=core.busy,
            body_bytes=core.budget.used + core.small_budget.used,
            peak_body_bytes=core.budget.peak + core.small_budget.peak,
            waiting=core.budget.num_waiting + core.small_budget.num_waiting,
            refusals=dict(core.refusals),
        )

    def reload(self, config: WireConfig) -> None:
        """New limits and times, from the next request on. Requests being read or served keep what they were promised."""
        core = self._started
        self._config = core.config = config
        core.heads = HeadReader(config.max_headers)
        large, small, core.largest_small = split_budget(config.max_bytes_in_flight)
        core.budget.resize(large)
        core.small_budget.resize(small)

    def begin_drain(self, idle_grace_s: float = 1.0) -> None:
        """Every answer is its connection's last from now on, and connections idle after the grace are closed.

        The grace is for requests that are on their way while we decide: closing under them would be an error to their client.
        The listener stays open, so that a load balancer can still be told; see `close_listener`.
        """
        core = self._started
        if core.draining:
            return
        core.draining = True
        for connection in core.connections:
            connection.announce_close()
        core.loop.call_later(idle_grace_s, self._close_idle)

    def close_listener(self) -> None:
        """No new connections. Those that are open live on. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def wait_idle(self, timeout_s: float) -> bool:
        """True once no request is being read or served, False if some are left after `timeout_s`."""
        core = self._started
        idle = asyncio.Event()

        def look() -> None:
            if not core.busy and all(connection.is_idle for connection in core.connections):
                idle.set()

        core.on_change = look
        look()
        try:
            async with asyncio.timeout(timeout_s):
                await idle.wait()
        except TimeoutError:
            return False
        finally:
            core.on_change = None
        return True

    async def close(self) -> None:
        """Now: handlers are cancelled, connections broken. Idempotent."""
        self.close_listener()
        if self._core is not None:
            self._core.draining = True
            for connection in list(self._core.connections):
                connection.abort()
            await self.wait_idle(1.0)

    def _close_idle(self) -> None:
        for connection in list(self._started.connections):
            connection.close_if_idle()

    @property
    def _started(self) -> ServerCore:
        if self._core is None:
            raise RuntimeError("the server is not started")
        return self._core
