"""Runs the application with uvicorn and ends it well: drain on SIGTERM or SIGINT, then exit.

uvicorn's own shutdown closes the listening socket at once. We keep it open while draining, so that a load balancer reads
503 from /ready (and a client its Retry-After) instead of a refused connection.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import uvicorn

from foveal.core.clock import Clock
from foveal.core.errors import ConfigurationError
from foveal.core.shutdown import Shutdown
from foveal.engine.api import EngineClient
from foveal.engine.server.app import create_app
from foveal.engine.server.config import ServerConfig
from foveal.engine.server.context import ServerContext
from foveal.engine.server.request_trace import make_tracer
from foveal.observability.logs import get_logger
from foveal.protocol.remote_image.image_fetcher import ImageFetcher

__all__ = ["Server", "bind_socket", "serve"]

_log = get_logger("foveal.server")

_CLOSE_TIMEOUT_S = 5
"""For the last bytes of answers that are complete, once nothing is in flight."""


async def serve(
    engine: EngineClient,
    config: ServerConfig | None = None,
    clock: Clock | None = None,
    *,
    on_started: Callable[[str], None] | None = None,
) -> int:
    """Serve until a signal; returns the exit status: 0 if every request finished, 1 if the grace period cut some off.

    `on_started` is called with the base URL once the port is open. Run it under uvloop for speed:
    `uvloop.run(serve(engine, config))`. The engine stays the caller's to stop. Raises ConfigurationError if the port is
    taken.
    """
    server = Server(engine, config or ServerConfig(), clock)
    return await server.run(on_started)


class Server:
    """`serve` in steps, for tests and for embedding: start, then drain or force from outside."""

    def __init__(
        self,
        engine: EngineClient,
        config: ServerConfig,
        clock: Clock | None = None,
        fetcher: ImageFetcher | None = None,
    ) -> None:
        self.config = config
        self._tracer = make_tracer(config)
        app = create_app(engine, config, clock, fetcher=fetcher, tracer=self._tracer)
        self.context: ServerContext = app.state.context
        self._shutdown = Shutdown()
        self._uvicorn = _Uvicorn(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_keep_alive=round(config.keep_alive_s),
                timeout_graceful_shutdown=_CLOSE_TIMEOUT_S,
            )
        )

    async def run(self, on_started: Callable[[str], None] | None = None, *, handle_signals: bool = True) -> int:
        """Serve until `request_stop` or a signal. Returns the exit status, see `serve`."""
        listener = bind_socket(self.config.host, self.config.port)
        host, port = listener.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        with self._shutdown.on_signals() if handle_signals else nullcontext():
            serving = asyncio.create_task(self._uvicorn.serve(sockets=[listener]))
            try:
                await self._uvicorn.wait_started(serving)
                _log.info("listening", url=url)
                if on_started is not None:
                    on_started(url)
                return await self._serve_until_stopped(serving)
            finally:
                self._uvicorn.should_exit = True
                await serving
                if self._tracer is not None:
                    await asyncio.to_thread(self._tracer.close)

    def request_stop(self) -> None:
        """Begin to drain; a second call gives up on what is in flight. What the signals do."""
        self._shutdown.request()

    async def _serve_until_stopped(self, serving: asyncio.Task[None]) -> int:
        stopped = asyncio.create_task(self._shutdown.requested.wait())
        await asyncio.wait({stopped, serving}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        in_flight, grace_s = self.context.admission.in_flight, self.config.drain_grace_s
        _log.info("draining", in_flight=in_flight.num_requests, grace_s=grace_s)

        async def cut_off() -> None:
            _log.warning("cutting off requests", in_flight=in_flight.num_requests)
            await in_flight.cut_off_all()

        clean = await self._shutdown.end(in_flight.drain(grace_s), cut_off)
        _log.info("drained", clean=clean)
        return 0 if clean else 1


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers: it would re-raise SIGTERM and end with its status instead of 0."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._has_started = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._has_started.set()

    async def wait_started(self, serving: asyncio.Task[None]) -> None:
        """Raises what `serving` raised if it ended first."""
        waiting = asyncio.create_task(self._has_started.wait())
        await asyncio.wait({waiting, serving}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            waiting.cancel()
            serving.result()


def bind_socket(host: str, port: int) -> socket.socket:
    """A bound TCP socket. Raises ConfigurationError if the address cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {error.strerror or error}. Choose another with --host and --port"
        ) from error
    listener.setblocking(False)
    return listener
