"""One backend in the pool."""

from __future__ import annotations

from foveal.gateway.backends.backend import BackendLoad, BackendSpec, BackendState
from foveal.gateway.resilience.backend_health import BackendHealth
from foveal.gateway.resilience.config import HealthConfig

__all__ = ["Member"]


class Member:
    """What the pool knows of one backend. Leases point to it, so that what is in flight outlives a reload."""

    def __init__(self, spec: BackendSpec, health: HealthConfig) -> None:
        self.spec = spec
        self.health = BackendHealth(health)
        self.in_flight = 0
        self.leaving = False
        self.version_weight = 1.0
        self._outstanding_ms = 0.0

    def respecify(self, spec: BackendSpec) -> None:
        """The same server with other settings."""
        self.spec = spec

    def take(self, cost_ms: float) -> None:
        self.in_flight += 1
        self._outstanding_ms += cost_ms

    def give_back(self, cost_ms: float) -> None:
        self.in_flight -= 1
        # Sums of floats drift; nothing in flight is exactly nothing.
        self._outstanding_ms = max(0.0, self._outstanding_ms - cost_ms) if self.in_flight else 0.0

    def load(self, now_s: float) -> BackendLoad:
        state, share = (BackendState.DRAINING, 0.0) if self.leaving else self.health.state(now_s)
        return BackendLoad(self.spec, state, self.in_flight, self._outstanding_ms, share, self.version_weight)
