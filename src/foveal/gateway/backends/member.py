"""One backend in the pool."""

from __future__ import annotations

from foveal.gateway.backends.backend import BackendLoad, BackendSpec, BackendState
from foveal.gateway.resilience.backend_health import BackendHealth
from foveal.gateway.resilience.config import HealthConfig

__all__ = ["Member"]


class Member:
    """What the pool knows of one backend. Leases point to it, so that what is in flight outlives a reload."""

    __slots__ = (
        "_load",
        "_outstanding_ms",
        "health",
        "in_flight",
        "leaving",
        "share",
        "slots",
        "spec",
        "state",
        "urgent_slots",
        "version_weight",
    )

    def __init__(self, spec: BackendSpec, health: HealthConfig) -> None:
        self.spec = spec
        self.health = BackendHealth(health)
        self.in_flight = 0
        self.leaving = False
        self.version_weight = 1.0
        self.state = BackendState.STARTING
        self.share = 0.0
        self.slots = 0
        """As in BackendLoad; right as of the last `refresh`."""
        self.urgent_slots = 0
        self._outstanding_ms = 0.0
        self._load: BackendLoad | None = None

    def refresh(self, now_s: float) -> float:
        """Bring state, share and slots up to date. Returns until when they hold if nothing happens, seconds."""
        valid_until_s = float("inf")
        if self.leaving:
            self.state, self.share = BackendState.DRAINING, 0.0
        else:
            self.state, self.share, valid_until_s = self.health.view(now_s)
        self._load = None
        load = self.load()
        self.slots, self.urgent_slots = load.slots, load.urgent_slots
        return valid_until_s

    def take(self, cost_ms: float) -> None:
        self.in_flight += 1
        self._outstanding_ms += cost_ms
        self._load = None

    def give_back(self, cost_ms: float) -> None:
        self.in_flight -= 1
        # Sums of floats drift; nothing in flight is exactly nothing.
        self._outstanding_ms = max(0.0, self._outstanding_ms - cost_ms) if self.in_flight else 0.0
        self._load = None

    def load(self) -> BackendLoad:
        """A snapshot, made anew only after a change."""
        load = self._load
        if load is None:
            load = self._load = BackendLoad(
                self.spec, self.state, self.in_flight, self._outstanding_ms, self.share, self.version_weight
            )
        return load
