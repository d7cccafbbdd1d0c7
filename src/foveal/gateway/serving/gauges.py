"""The gateway at the moment of a scrape."""

from __future__ import annotations

from collections.abc import Callable

from foveal.core.in_flight import InFlight
from foveal.core.priority import Priority
from foveal.gateway.backends.pool import BackendPool
from foveal.gateway.caching.disk_cache import DiskCache
from foveal.gateway.caching.memory_cache import MemoryCache
from foveal.gateway.caching.response_cache import ResponseCache
from foveal.gateway.queueing.dispatcher import Dispatcher
from foveal.gateway.wire.hot_server import HotServer
from foveal.observability.gateway_snapshot import BackendGauges, GatewaySnapshot

__all__ = ["gateway_snapshot"]


def gateway_snapshot(
    now_s: float,
    pool: BackendPool,
    dispatcher: Dispatcher,
    in_flight: InFlight,
    cache: ResponseCache,
    server: HotServer | None,
    max_body_bytes: int,
) -> GatewaySnapshot:
    queues = [dispatcher.queue(model) for model in pool.models]
    return GatewaySnapshot(
        requests_in_flight=in_flight.num_requests,
        body_bytes_in_flight=server.stats.body_bytes if server is not None else 0,
        body_bytes_limit=max_body_bytes,
        queue_length={priority.name: sum(queue.length(priority) for queue in queues) for priority in Priority},
        queue_cost_ms={priority.name: sum(queue.class_cost_ms(priority) for queue in queues) for priority in Priority},
        backends=[
            BackendGauges(
                id=load.spec.id,
                up=load.state.takes_requests,
                in_flight=load.in_flight,
                max_in_flight=load.spec.max_in_flight,
                outstanding_ms=load.outstanding_ms,
                share=load.share,
            )
            for load in pool.loads(now_s)
        ],
        cache_bytes=_layers(cache, lambda layer: layer.num_bytes),
        cache_entries=_layers(cache, len),
        draining=in_flight.draining,
    )


def _layers(cache: ResponseCache, measure: Callable[[MemoryCache | DiskCache], int]) -> dict[str, int]:
    measured = {"memory": measure(cache.memory)}
    return measured if cache.disk is None else {**measured, "sqlite": measure(cache.disk)}
