"""A gateway: start, reload, drain, close."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version

from foveal.core.clock import Clock, MonotonicClock
from foveal.core.errors import ConfigurationError
from foveal.core.in_flight import InFlight
from foveal.gateway.backends.health_checker import HealthChecker
from foveal.gateway.backends.pool import BackendPool
from foveal.gateway.config.diff import diff
from foveal.gateway.config.gateway import GatewayConfig
from foveal.gateway.serving.assembly import Assembly
from foveal.gateway.serving.exchange import Exchange
from foveal.gateway.serving.gauges import gateway_snapshot
from foveal.gateway.serving.head_check import UNREAD, head_check
from foveal.gateway.serving.pages import create_pages
from foveal.gateway.serving.parts import Parts
from foveal.gateway.serving.probe import BackendFacts, HealthProbe
from foveal.gateway.serving.state_watch import StateWatch
from foveal.gateway.serving.tls import client_context, server_context
from foveal.gateway.wire.hot_server import HotServer
from foveal.gateway.wire.upstream import UpstreamClient
from foveal.gateway.wire.upstream_pool import PooledClient
from foveal.observability.gateway_metrics import GatewayMetrics
from foveal.observability.gateway_snapshot import GatewaySnapshot
from foveal.observability.logs import get_logger

__all__ = ["Gateway", "gateway_version"]

_log = get_logger("foveal.gateway")
_HOUSE_S = 1.0
_MAX_LOGGED = 50
"""Changes of one reload that the log names."""
_CLOSE_S = 5.0
"""For the last bytes of answers that are complete, once nothing is in flight."""


class Gateway:
    """Belongs to one event loop; make it there. Raises ConfigurationError."""

    def __init__(
        self,
        load: Callable[[], GatewayConfig],
        *,
        clock: Clock | None = None,
        client: UpstreamClient | None = None,
        wall_time_s: Callable[[], float] = time.time,
    ) -> None:
        """`load` gives the configuration, now and at each reload."""
        self._load = load
        self._clock = clock or MonotonicClock()
        config = load()
        self._tls = server_context(config.listen.tls)
        client = client or PooledClient(ssl_context=client_context(config.upstream_tls))
        self._assembly = assembly = Assembly(config, self._clock, client, self, self._snapshot, wall_time_s)
        self._server: HotServer | None = None
        self._probe = HealthProbe(client, config.health, assembly.pricer.publish)
        self._health = HealthChecker(assembly.pool, self._probe, config.health, self._clock)
        self._tasks: list[asyncio.Task[None]] = []
        self._exchange = Exchange(assembly.parts(config), assembly.shared(config))

    @property
    def parts(self) -> Parts:
        """What new requests are served with."""
        return self._exchange.parts

    @property
    def pool(self) -> BackendPool:
        return self._assembly.pool

    @property
    def in_flight(self) -> InFlight:
        return self._assembly.in_flight

    @property
    def metrics(self) -> GatewayMetrics:
        return self._assembly.metrics

    @property
    def facts(self) -> Mapping[str, BackendFacts]:
        """What backends say of themselves, by model."""
        return self._probe.facts

    @property
    def body_bytes(self) -> int:
        """Held for bodies now."""
        return self._server.stats.body_bytes if self._server is not None else 0

    def now_s(self) -> float:
        """Of the clock that everything here uses."""
        return self._clock.now_s()

    def try_reserve(self, num_bytes: int) -> bool:
        """Room for fetched images, in the same budget as bodies."""
        return self._server is not None and self._server.budget.try_reserve(num_bytes)

    def release(self, num_bytes: int) -> None:
        if self._server is not None:
            self._server.budget.release(num_bytes)

    async def start(self) -> str:
        """Listens; returns the base URL. Raises ConfigurationError if the address cannot be had."""
        await self._assembly.open()
        listen = self.parts.config.listen
        pages = create_pages(self, gateway_version())
        server = HotServer(self._exchange, pages, listen, head_check(lambda: self.parts), self._on_refusal)
        try:
            await server.start(listen.host, listen.port, self._tls)
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {listen.host} port {listen.port}: {error.strerror or error}. Choose another with --host "
                "and --port"
            ) from error
        self._server = server
        self._tasks = [asyncio.create_task(self._health.run()), asyncio.create_task(self._keep_house())]
        scheme = "http" if self._tls is None else "https"
        host = f"[{listen.host}]" if ":" in listen.host else listen.host
        return f"{scheme}://{host}:{server.port}"

    async def reload(self) -> None:
        """Takes over the configuration without touching what is in flight. Raises ConfigurationError; then nothing has
        changed."""
        old = self.parts.config
        try:
            new = self._load()
            self._assembly.reload(old, new)
        except ConfigurationError:
            self.metrics.count("config_reloads_total", "refused")
            raise
        self._health.reload(new.health)
        self._probe.reload(new.health)
        if self._server is not None:
            self._server.reload(new.listen)
        self._exchange.parts, self._exchange.shared = self._assembly.parts(new), self._assembly.shared(new)
        self.metrics.count("config_reloads_total", "ok")
        changes = diff(old, new)
        _log.info("configuration reloaded", changes=[str(change) for change in changes.changes[:_MAX_LOGGED]])
        if changes.needs_restart:
            waiting = [str(change) for change in changes.needs_restart]
            _log.warning("some settings hold from the next start only", settings=waiting)

    async def drain(self) -> bool:
        """Refuse new requests, let those in flight finish; True if all did within the grace period. The port stays open
        meanwhile, so that a load balancer reads 503 from /ready."""
        assert self._server is not None
        grace_s = self.parts.config.listen.drain_grace_s
        _log.info("draining", in_flight=self.in_flight.num_requests, grace_s=grace_s)
        self._server.begin_drain()
        clean = await self.in_flight.drain(grace_s)
        return clean and await self._server.wait_idle(_CLOSE_S)

    async def cut_off(self) -> None:
        """End what is still in flight, each with an explicit error."""
        _log.warning("cutting off requests", in_flight=self.in_flight.num_requests)
        await self.in_flight.cut_off_all()
        if self._server is not None:
            await self._server.wait_idle(_CLOSE_S)

    async def close(self) -> None:
        """Idempotent. Drain first, or what is in flight is broken off."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._server is not None:
            await self._server.close()
        await self._assembly.close()

    def _snapshot(self) -> GatewaySnapshot:
        limit = self.parts.config.listen.max_bytes_in_flight
        parts = self._assembly
        return gateway_snapshot(
            self._clock.now_s(), parts.pool, parts.dispatcher, parts.in_flight, parts.cache, self._server, limit
        )

    def _on_refusal(self, status: int, reason: str) -> None:
        if status == 503 and reason != "check":  # the head check counts its own
            self.metrics.count("shed_total", UNREAD, "bytes" if reason == "bytes_in_flight" else "connections")

    async def _keep_house(self) -> None:
        watch = StateWatch(self.metrics)
        while True:
            await asyncio.sleep(_HOUSE_S)
            watch.look(self.pool.loads(self._clock.now_s()))
            with contextlib.suppress(OSError, ValueError):  # a log that cannot be written stops nothing
                self._assembly.request_log.flush()


def gateway_version() -> str:
    """Of the installed package; "0" where only the source tree is on the path."""
    try:
        return package_version("foveal")
    except PackageNotFoundError:
        return "0"
