"""Connections to backends, kept and used again. Implements `UpstreamClient`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from foveal.core.errors import ConfigurationError
from foveal.gateway.backends.backend import BackendSpec
from foveal.gateway.wire.upstream import UpstreamError, UpstreamTimeouts
from foveal.gateway.wire.upstream_answer import UpstreamAnswer
from foveal.gateway.wire.upstream_connection import UpstreamConnection

__all__ = ["PoolConfig", "PooledClient"]

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class PoolConfig:
    max_idle: int = 256
    """Connections kept for each backend while nothing is asked of it."""
    idle_s: float = 4.0
    """An idle connection older than this is not used again: below uvicorn's 5 s, after which the other side closes it."""
    stale_s: float = 1.0
    """A reused connection that breaks within this time, without one byte of an answer, was closed by the other side while our
    request was on its way: the request was not seen, and is sent once more on a new connection. Later it may have been
    the request that killed the backend, and is not ours to repeat."""
    unacknowledged_ms: int = 30_000
    """A peer that acknowledges nothing for so long is gone (TCP_USER_TIMEOUT): ends half-open connections."""


class _Origin:
    """One address, and its idle connections; the newest is taken first, so that the rest can go cold."""

    __slots__ = ("host", "idle", "name", "port", "prefixes", "secure", "server_name")

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.username or parts.query:
            raise ConfigurationError(f"backend url {url!r} is not of the form http://host:port")
        if parts.path not in ("", "/"):
            raise ConfigurationError(f"backend url {url!r} has a path; give http://host:port alone")
        self.secure = parts.scheme == "https"
        self.host = parts.hostname
        self.port = port or (443 if self.secure else 80)
        self.name = parts.netloc
        self.idle: list[UpstreamConnection] = []
        self.prefixes: dict[tuple[str, str], bytes] = {}

    def prefix(self, method: str, path: str) -> bytes:
        """Request line and Host field."""
        line = self.prefixes.get((method, path))
        if line is None:
            line = f"{method} {path} HTTP/1.1\r\nhost: {self.name}\r\n".encode("ascii")
            if line.count(b"\n") != 2 or line.count(b" ") != 3:
                raise ValueError(f"{method!r} {path!r} cannot stand in a request line")
            if len(self.prefixes) < 64:
                self.prefixes[method, path] = line
        return line


class PooledClient:
    """See `UpstreamClient`. How many requests a backend gets at once is not decided here."""

    def __init__(self, config: PoolConfig | None = None, ssl_context: ssl.SSLContext | None = None) -> None:
        self._config = config or PoolConfig()
        self._ssl = ssl_context
        self._origins: dict[str, _Origin] = {}
        self._open: set[UpstreamConnection] = set()
        self._closed = False

    async def send(
        self,
        backend: BackendSpec,
        method: str,
        path: str,
        headers: Sequence[tuple[bytes, bytes]],
        body: Sequence[Buffer],
        timeouts: UpstreamTimeouts,
    ) -> UpstreamAnswer:
        origin = self._origins.get(backend.url)
        if origin is None:
            origin = self._origins[backend.url] = _Origin(backend.url)
        head = _request_head(origin.prefix(method, path), headers, body)
        loop = asyncio.get_running_loop()
        connection = self._take_idle(origin, loop.time())
        if connection is not None:
            sent_s = loop.time()
            answer = connection.send(head, body, timeouts)
            try:
                await _begun(answer)
            except UpstreamError as error:
                fresh = answer.received or error.timed_out or loop.time() - sent_s > self._config.stale_s
                if fresh or self._closed:
                    raise
            else:
                return answer
        connection = await self._connect(origin, timeouts.connect_s)
        answer = connection.send(head, body, timeouts)
        await _begun(answer)
        return answer

    @property
    def num_open(self) -> int:
        return len(self._open)

    def num_idle(self, url: str) -> int:
        origin = self._origins.get(url)
        return len(origin.idle) if origin is not None else 0

    async def aclose(self) -> None:
        """Breaks all connections. Idempotent."""
        self._closed = True
        for connection in list(self._open):
            connection.close()
        # Transports tell their end in the next round of the loop.
        await asyncio.sleep(0)

    def forget(self, url: str) -> None:
        """A backend that left the configuration: its idle connections are closed."""
        origin = self._origins.pop(url, None)
        if origin is not None:
            for connection in list(origin.idle):
                connection.close()

    def _take_idle(self, origin: _Origin, now_s: float) -> UpstreamConnection | None:
        idle = origin.idle
        while idle:
            connection = idle.pop()
            if now_s - connection.idle_since_s > self._config.idle_s:
                # It is the newest: all others are older still.
                for stale in (connection, *idle):
                    stale.close()
                idle.clear()
                return None
            if connection.is_usable:
                return connection
        return None

    async def _connect(self, origin: _Origin, connect_s: float) -> UpstreamConnection:
        if self._closed:
            raise UpstreamError("the client is closed", "connect")
        if origin.secure and self._ssl is None:
            # Once: it reads and parses all of the system's certificates.
            self._ssl = ssl.create_default_context()
        loop = asyncio.get_running_loop()

        def free(connection: UpstreamConnection) -> None:
            if self._closed or len(origin.idle) >= self._config.max_idle:
                connection.close()
            else:
                connection.idle_since_s = loop.time()
                origin.idle.append(connection)

        def lost(connection: UpstreamConnection) -> None:
            self._open.discard(connection)
            with contextlib.suppress(ValueError):
                origin.idle.remove(connection)

        try:
            async with asyncio.timeout(connect_s):
                transport, connection = await loop.create_connection(
                    lambda: UpstreamConnection(loop, origin.name, free, lost),
                    origin.host,
                    origin.port,
                    ssl=self._ssl if origin.secure else None,
                    server_hostname=origin.host if origin.secure else None,
                )
        except TimeoutError:
            raise UpstreamError(
                f"backend {origin.name} could not be reached within {connect_s:g} s", "connect", timed_out=True
            ) from None
        except (OSError, ssl.SSLError) as error:
            raise UpstreamError(f"backend {origin.name} could not be reached: {error}", "connect") from error
        self._open.add(connection)
        _prepare_socket(transport, self._config.unacknowledged_ms)
        return connection


async def _begun(answer: UpstreamAnswer) -> None:
    try:
        await answer.begun()
    except BaseException:
        # Cancelled, or failed: nobody will read the rest.
        answer.drop()
        raise


def _request_head(prefix: bytes, headers: Sequence[tuple[bytes, bytes]], body: Sequence[Buffer]) -> bytes:
    """Raises ValueError if a field holds a line break: it would forge a second request."""
    lines = [b"%b: %b\r\n" % field for field in headers]
    length = b"content-length: %d\r\n\r\n" % sum(map(len, body))
    head = b"".join([prefix, *lines, length])
    if head.count(b"\n") != len(lines) + 4:
        raise ValueError("a header field for the backend holds a line break")
    return head


def _prepare_socket(transport: asyncio.BaseTransport, unacknowledged_ms: int) -> None:
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is None or not hasattr(socket, "TCP_USER_TIMEOUT"):
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unacknowledged_ms)
