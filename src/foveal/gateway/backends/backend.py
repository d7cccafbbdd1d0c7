"""An OpenAI server behind the gateway: what the operator says of it, and what is known of it now."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import msgspec

from foveal.core.priority import Priority

__all__ = ["BackendLoad", "BackendSpec", "BackendState"]


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """One process. Replicas of one model version are several specs with equal `model` and `version`."""

    id: str
    url: str
    """http://host:port, without a path."""
    model: str
    """The name clients use."""
    version: str = "1"
    served_name: str | None = None
    """The name the backend itself uses, where it differs: it is spliced into the body."""
    max_in_flight: int = 32
    """Requests beyond it wait in the gateway's queue, so that queueing happens in one place."""
    urgent_slots: int = 0
    """P0 may go this far above `max_in_flight`. Right for a backend that batches and has room in its batch: one more
    request then slows the others a little and nobody waits."""
    api_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.max_in_flight < 1 or self.urgent_slots < 0:
            raise ValueError(
                f"backend {self.id}: max_in_flight is {self.max_in_flight} and urgent_slots {self.urgent_slots}; "
                "they must be at least 1 and 0"
            )


class BackendState(enum.Enum):
    STARTING = "starting"
    """Not yet seen healthy."""
    UP = "up"
    RETURNING = "returning"
    """Was ejected; gets a slowly growing share."""
    EJECTED = "ejected"
    DRAINING = "draining"
    """Removed from the configuration or told to stop: finishes what it has."""

    @property
    def takes_requests(self) -> bool:
        return self is BackendState.UP or self is BackendState.RETURNING


class BackendLoad(msgspec.Struct, frozen=True):
    """A snapshot for routing decisions. A struct, because every request makes one."""

    spec: BackendSpec
    state: BackendState
    in_flight: int = 0
    outstanding_ms: float = 0.0
    """Sum of the prices (cost_ms) of what is in flight there."""
    share: float = 1.0
    """Fraction of its capacity it may use now, below 1 while RETURNING. 0 there means one request at a time."""
    version_weight: float = 1.0
    """Share of the model's traffic that is meant for its version, relative to the other versions."""

    @property
    def slots(self) -> int:
        """Requests of any class it may have now."""
        if not self.state.takes_requests:
            return 0
        return self.spec.max_in_flight if self.share >= 1.0 else max(1, int(self.spec.max_in_flight * self.share))

    @property
    def urgent_slots(self) -> int:
        """Requests it may have now if the next one is of class P0."""
        return self.slots + self.spec.urgent_slots if self.state is BackendState.UP else self.slots

    def free(self, priority: Priority) -> int:
        """Slots a request of this class may choose from."""
        return max(0, (self.urgent_slots if priority == Priority.P0 else self.slots) - self.in_flight)
