"""The composition root: every part of the gateway made once, and joined anew by each reload."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from foveal.core.clock import Clock
from foveal.core.errors import OverloadedError
from foveal.core.in_flight import InFlight
from foveal.gateway.backends.pool import BackendPool
from foveal.gateway.backends.supplier import StaticReplicas
from foveal.gateway.caching.response_cache import ResponseCache
from foveal.gateway.caching.single_flight import SingleFlight
from foveal.gateway.config.gateway import GatewayConfig
from foveal.gateway.config.models import PricingConfig
from foveal.gateway.config.remote_images import RemoteImagesConfig
from foveal.gateway.pricing.pricer import Pricer
from foveal.gateway.queueing.dispatcher import Dispatcher
from foveal.gateway.queueing.ticket import Shed, ShedReason
from foveal.gateway.request.fetcher import make_fetcher
from foveal.gateway.request.limits import RequestLimits
from foveal.gateway.request.remote_images import Budget, RemoteImages
from foveal.gateway.resilience.hedge_policy import HedgePolicy
from foveal.gateway.resilience.retry_policy import RetryPolicy
from foveal.gateway.routing.make_policy import make_policy
from foveal.gateway.routing.policy import RoutingPolicy
from foveal.gateway.serving.asking import Asking
from foveal.gateway.serving.attempts import Attempts
from foveal.gateway.serving.forwarder import Forwarder
from foveal.gateway.serving.hedging import Hedging
from foveal.gateway.serving.parts import Parts
from foveal.gateway.serving.seats import Seats
from foveal.gateway.serving.shared_answers import SharedAnswers, generations
from foveal.gateway.tenancy.tenancy import Tenancy
from foveal.gateway.wire.upstream import UpstreamClient
from foveal.observability.exchange_observer import ExchangeObserver
from foveal.observability.gateway_metrics import GatewayMetrics
from foveal.observability.gateway_snapshot import GatewaySnapshot
from foveal.observability.request_log import RequestLog
from foveal.observability.tracing.otlp import OtlpTracer

__all__ = ["Assembly"]


class Assembly:
    """Belongs to one event loop. What lives as long as the process is made here; `parts` is made for a configuration."""

    def __init__(
        self,
        config: GatewayConfig,
        clock: Clock,
        client: UpstreamClient,
        budget: Budget,
        read_snapshot: Callable[[], GatewaySnapshot],
        wall_time_s: Callable[[], float],
    ) -> None:
        """`budget` is that of the bytes in flight. Raises ConfigurationError."""
        self._clock = clock
        self._client = client
        self._budget = budget
        self._policies: dict[str, RoutingPolicy] = {}
        self.pool = BackendPool(config.health, config.headroom)
        self._replicas = StaticReplicas(())
        self._replicas.subscribe(lambda specs: self.pool.update(specs, clock.now_s()))
        self.dispatcher = Dispatcher(self.pool, self._policies.__getitem__, config.queue, clock.now_s())
        self.metrics = GatewayMetrics(read_snapshot, clock.now_s, config.metrics.max_tenant_labels)
        self.seats = Seats(self.pool, self.dispatcher, clock, self._on_shed)
        self.pricer = Pricer(_pricing(config))
        self.in_flight = InFlight("gateway")
        self.tenancy = Tenancy(config, now_s=clock.now_s, wall_s=wall_time_s)
        self.cache = ResponseCache(config.cache, config.state, wall_time_s)
        self._flights = SingleFlight()
        self._images: tuple[tuple[RemoteImagesConfig, RequestLimits], RemoteImages] | None = None
        self._wall_time_s = wall_time_s
        self.request_log = self._make_log(config)
        tracing = config.tracing
        self._tracer = (
            OtlpTracer(tracing.endpoint, tracing.service_name, tracing.sample_ratio) if tracing.endpoint else None
        )
        self._use_backends(config)

    async def open(self) -> None:
        await self.tenancy.open()
        await self.cache.open()

    async def close(self) -> None:
        """What is in flight is broken off. Idempotent."""
        self.seats.close("the gateway is shutting down; retry, so that another replica answers")
        await self._flights.close()
        await self._client.aclose()
        await self.cache.close()
        await self.tenancy.close()
        self.request_log.flush()
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)

    def reload(self, old: GatewayConfig, new: GatewayConfig) -> None:
        """Raises ConfigurationError for pricing that cannot be; then nothing has changed."""
        self.pricer.reload(_pricing(new))
        self.tenancy.reload(new)
        self.cache.reload(new.cache)
        self.dispatcher.reload(new.queue)
        self.pool.reload(new.health, new.headroom)
        if new.logging != old.logging:
            self.request_log.flush()
            self.request_log = self._make_log(new)
        self._use_backends(new)
        for name in set(old.models) - set(new.models):
            self.seats.drop_model(name)

    def parts(self, config: GatewayConfig) -> Parts:
        now_s = self._clock.now_s()
        asking = Asking(Forwarder(self._client), self.seats, self.metrics, self._clock)
        hedge = HedgePolicy(config.hedging, now_s) if config.hedging.enabled else None
        hedging = Hedging(asking, self.seats, self.pool, hedge, self.metrics, self._clock)
        retries = RetryPolicy(config.retries, now_s)
        waits = config.deadlines_s.of
        return Parts(
            config=config,
            clock=self._clock,
            tenancy=self.tenancy,
            images=self._images_for(config),
            budget=self._budget,
            pricing=self.pricer,
            pool=self.pool,
            dispatcher=self.dispatcher,
            attempts=Attempts(hedging, self.seats, self.pool, retries, waits, self.metrics, self._clock),
            in_flight=self.in_flight,
            metrics=self.metrics,
            observer=ExchangeObserver(self.metrics, self.request_log, self._tracer),
        )

    def shared(self, config: GatewayConfig) -> SharedAnswers:
        return SharedAnswers(self.cache, self._flights, config.cache.single_flight, generations(config))

    def _make_log(self, config: GatewayConfig) -> RequestLog:
        logging = config.logging
        return RequestLog(
            sys.stderr,
            logging.format,
            access=logging.access,
            slow_s=logging.slow_request_s,
            wall_time_s=self._wall_time_s,
        )

    def _images_for(self, config: GatewayConfig) -> RemoteImages:
        """Kept as long as its settings are: it holds fetched images."""
        settings = (config.remote_images, config.request_limits)
        if self._images is None or self._images[0] != settings:
            images = RemoteImages(
                config.remote_images,
                config.request_limits,
                make_fetcher(config.remote_images),
                self._clock.now_s,
                lambda outcome: self.metrics.count("image_fetches_total", outcome),
            )
            self._images = (settings, images)
        return self._images[1]

    def _use_backends(self, config: GatewayConfig) -> None:
        for name, model in config.models.items():
            self._policies[name] = make_policy(model.routing)
        self._replicas.replace(config.backends)
        for name, model in config.models.items():
            versions = model.all_versions
            self.pool.set_weights(name, {v.version: v.weight for v in versions} if len(versions) > 1 else {})

    def _on_shed(self, shed: Shed, error: OverloadedError) -> None:
        reason = "deadline" if shed.reason in (ShedReason.EXPIRED, ShedReason.HOPELESS) else "queue_full"
        if error.code == "no_backend":
            reason = "no_backend"
        self.metrics.count("shed_total", shed.ticket.priority.name, reason)


def _pricing(config: GatewayConfig) -> dict[str, PricingConfig]:
    return {name: model.pricing for name, model in config.models.items()}
