"""What the gateway is like at the moment of a scrape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from foveal.observability.metric_table import Snapshot

__all__ = ["BackendGauges", "GatewaySnapshot"]


@dataclass(frozen=True, slots=True)
class BackendGauges:
    id: str
    up: bool
    in_flight: int = 0
    max_in_flight: int = 0
    outstanding_ms: float = 0.0
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class GatewaySnapshot:
    requests_in_flight: int = 0
    body_bytes_in_flight: int = 0
    body_bytes_limit: int = 0
    queue_length: Mapping[str, int] = field(default_factory=dict)
    """By class: {"P0": 0, ...}."""
    queue_cost_ms: Mapping[str, float] = field(default_factory=dict)
    backends: Sequence[BackendGauges] = ()
    cache_bytes: Mapping[str, int] = field(default_factory=dict)
    """By layer: memory, sqlite."""
    cache_entries: Mapping[str, int] = field(default_factory=dict)
    draining: bool = False

    def values(self, active_tenants: int) -> Snapshot:
        """Value by metric name."""
        backends = self.backends
        return {
            "foveal_gateway_requests_in_flight": self.requests_in_flight,
            "foveal_gateway_body_bytes_in_flight": self.body_bytes_in_flight,
            "foveal_gateway_body_bytes_limit": self.body_bytes_limit,
            "foveal_gateway_queue_length": {"P0": 0, "P1": 0, "P2": 0, **self.queue_length},
            "foveal_gateway_queue_cost_seconds": {name: ms / 1000 for name, ms in self.queue_cost_ms.items()},
            "foveal_gateway_active_tenants": active_tenants,
            "foveal_gateway_backend_up": {one.id: float(one.up) for one in backends},
            "foveal_gateway_backend_in_flight": {one.id: one.in_flight for one in backends},
            "foveal_gateway_backend_max_in_flight": {one.id: one.max_in_flight for one in backends},
            "foveal_gateway_backend_outstanding_seconds": {one.id: one.outstanding_ms / 1000 for one in backends},
            "foveal_gateway_backend_share": {one.id: one.share for one in backends},
            "foveal_gateway_cache_bytes": dict(self.cache_bytes),
            "foveal_gateway_cache_entries": dict(self.cache_entries),
            "foveal_gateway_draining": float(self.draining),
        }
