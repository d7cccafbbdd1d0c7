"""The composition root: every part of the gateway made once, and joined."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version

from foveal.core.clock import Clock, MonotonicClock
from foveal.core.errors import ConfigurationError, OverloadedError
from foveal.gateway.backends.health_checker import HealthChecker
from foveal.gateway.backends.pool import BackendPool
from foveal.gateway.caching.response_cache import ResponseCache
from foveal.gateway.caching.single_flight import SingleFlight
from foveal.gateway.config.diff import diff
from foveal.gateway.config.gateway import GatewayConfig
from foveal.gateway.pricing.pricer import Pricer
from foveal.gateway.queueing.dispatcher import Dispatcher
from foveal.gateway.queueing.ticket import Shed, ShedReason
from foveal.gateway.resilience.hedge_policy import HedgePolicy
from foveal.gateway.resilience.retry_policy import RetryPolicy
from foveal.gateway.routing.make_policy import make_policy
from foveal.gateway.routing.policy import RoutingPolicy
from foveal.gateway.serving.asking import Asking
from foveal.gateway.serving.attempts import Attempts
from foveal.gateway.serving.exchange import Exchange
from foveal.gateway.serving.forwarder import Forwarder
from foveal.gateway.serving.gauges import gateway_snapshot
from foveal.gateway.serving.head_check import head_check
from foveal.gateway.serving.hedging import Hedging
from foveal.gateway.serving.in_flight import InFlight
from foveal.gateway.serving.pages import create_pages
from foveal.gateway.serving.parts import Parts
from foveal.gateway.serving.probe import BackendFacts, HealthProbe
from foveal.gateway.serving.seats import Seats
from foveal.gateway.serving.shared_answers import SharedAnswers, generations
from foveal.gateway.serving.tls import client_context, server_context
from foveal.gateway.tenancy.tenancy import Tenancy
from foveal.gateway.wire.hot_server import HotServer
from foveal.gateway.wire.upstream import UpstreamClient
from foveal.gateway.wire.upstream_pool import PooledClient
from foveal.observability.exchange_observer import ExchangeObserver
from foveal.observability.gateway_metrics import GatewayMetrics
from foveal.observability.gateway_snapshot import GatewaySnapshot
from foveal.observability.logs import get_logger
from foveal.observability.request_log import RequestLog
from foveal.observability.tracing.otlp import OtlpTracer

__all__ = ["Gateway", "gateway_version"]

_log = get_logger("foveal.gateway")
_FLUSH_S = 1.0
_MAX_LOGGED = 50
"""Changes of one reload that the log names."""
_CLOSE_S = 5.0
"""For the last bytes of answers that are complete, once nothing is in flight."""


class Gateway:
    """Start, reload, drain, close. Belongs to one event loop; make it there. Raises ConfigurationError."""

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
        now_s = self._clock.now_s()
        self._tls = server_context(config.listen.tls)
        self._client = client or PooledClient(ssl_context=client_context(config.upstream_tls))
        self._policies: dict[str, RoutingPolicy] = {}
        self.pool = BackendPool(config.health, config.headroom)
        self._dispatcher = Dispatcher(self.pool, self._policies.__getitem__, config.queue, now_s)
        self._seats = Seats(self.pool, self._dispatcher, self._clock, self._on_shed)
        self._pricer = Pricer({name: model.pricing for name, model in config.models.items()})
        self.in_flight = InFlight()
        self._server: HotServer | None = None
        self.metrics = GatewayMetrics(self._snapshot, self._clock.now_s, config.metrics.max_tenant_labels)
        self._tenancy = Tenancy(config, now_s=self._clock.now_s, wall_s=wall_time_s)
        logging = config.logging
        self._request_log = RequestLog(
            sys.stderr,
            logging.format,
            access=logging.access,
            slow_s=logging.slow_request_s,
            wall_time_s=wall_time_s,
        )
        self._tracer = _tracer(config)
        self._observer = ExchangeObserver(self.metrics, self._request_log, self._tracer)
        self._probe = HealthProbe(self._client, config.health.path, config.health.timeout_s, self._pricer.publish)
        self._health = HealthChecker(self.pool, self._probe, config.health, self._clock)
        self._tasks: list[asyncio.Task[None]] = []
        self._use_backends(config)
        self._cache = ResponseCache(config.cache, config.state, wall_time_s)
        self._flights = SingleFlight()
        self._exchange = Exchange(self._make_parts(config), self._make_shared(config))

    @property
    def parts(self) -> Parts:
        """What new requests are served with."""
        return self._exchange.parts

    def now_s(self) -> float:
        """Of the clock that everything here uses."""
        return self._clock.now_s()

    @property
    def facts(self) -> Mapping[str, BackendFacts]:
        return self._probe.facts

    @property
    def body_bytes(self) -> int:
        return self._server.stats.body_bytes if self._server is not None else 0

    async def start(self) -> str:
        """Listens; returns the base URL. Raises ConfigurationError if the address cannot be had."""
        await self._tenancy.open()
        await self._cache.open()
        config = self.parts.config
        listen = config.listen
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
        try:
            config = self._load()
        except ConfigurationError:
            self.metrics.count("config_reloads_total", "refused")
            raise
        old = self.parts.config
        self._pricer.reload({name: model.pricing for name, model in config.models.items()})
        self._tenancy.reload(config)
        self._use_backends(config)
        self._dispatcher.reload(config.queue)
        if self._server is not None:
            self._server.reload(config.listen)
        for name in set(old.models) - set(config.models):
            self._seats.drop_model(name)
        self._cache.reload(config.cache)
        self._exchange.parts, self._exchange.shared = self._make_parts(config), self._make_shared(config)
        self.metrics.count("config_reloads_total", "ok")
        changes = diff(old, config)
        _log.info("configuration reloaded", changes=[str(change) for change in changes.changes][:_MAX_LOGGED])
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
        self._seats.close("the gateway is shutting down; retry, so that another replica answers")
        if self._server is not None:
            await self._server.close()
        await self._flights.close()
        await self._client.aclose()
        await self._cache.close()
        await self._tenancy.close()
        self._request_log.flush()
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)

    def _make_parts(self, config: GatewayConfig) -> Parts:
        now_s = self._clock.now_s()
        asking = Asking(Forwarder(self._client), self._seats, self.metrics, self._clock)
        hedge = HedgePolicy(config.hedging, now_s) if config.hedging.enabled else None
        hedging = Hedging(asking, self._seats, self.pool, hedge, self.metrics, self._clock)
        return Parts(
            config=config,
            clock=self._clock,
            tenancy=self._tenancy,
            pricing=self._pricer,
            pool=self.pool,
            dispatcher=self._dispatcher,
            attempts=Attempts(
                hedging,
                self._seats,
                self.pool,
                RetryPolicy(config.retries, now_s),
                config.deadlines_s.of,
                self.metrics,
                self._clock,
            ),
            in_flight=self.in_flight,
            metrics=self.metrics,
            observer=self._observer,
        )

    def _make_shared(self, config: GatewayConfig) -> SharedAnswers:
        return SharedAnswers(self._cache, self._flights, config.cache.single_flight, generations(config))

    def _use_backends(self, config: GatewayConfig) -> None:
        for name, model in config.models.items():
            self._policies[name] = make_policy(model.routing)
        self.pool.update(config.backends, self._clock.now_s())
        for name, model in config.models.items():
            versions = model.all_versions
            self.pool.set_weights(name, {v.version: v.weight for v in versions} if len(versions) > 1 else {})

    def _snapshot(self) -> GatewaySnapshot:
        limit = self.parts.config.listen.max_bytes_in_flight
        now_s = self._clock.now_s()
        return gateway_snapshot(now_s, self.pool, self._dispatcher, self.in_flight, self._server, limit)

    def _on_shed(self, shed: Shed, error: OverloadedError) -> None:
        reason = "deadline" if shed.reason in (ShedReason.EXPIRED, ShedReason.HOPELESS) else "queue_full"
        if error.code == "no_backend":
            reason = "no_backend"
        self.metrics.count("shed_total", shed.ticket.priority.name, reason)

    def _on_refusal(self, status: int, reason: str) -> None:
        if status == 503:
            self.metrics.count("shed_total", "P1", "bytes" if reason == "bytes_in_flight" else "connections")

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_S)
            with contextlib.suppress(OSError, ValueError):  # a log that cannot be written stops nothing
                self._request_log.flush()


def _tracer(config: GatewayConfig) -> OtlpTracer | None:
    tracing = config.tracing
    if tracing.endpoint is None:
        return None
    return OtlpTracer(tracing.endpoint, tracing.service_name, tracing.sample_ratio)


def gateway_version() -> str:
    """Of the installed package; "0" where only the source tree is on the path."""
    try:
        return package_version("foveal")
    except PackageNotFoundError:
        return "0"
