"""Limits of the queue."""

from __future__ import annotations

from dataclasses import dataclass

from foveal.core.priority import AGEING_S

__all__ = ["HeadroomConfig", "QueueConfig"]


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """One queue per model. All limits are on what waits, not on what runs."""

    max_requests: int = 1000
    max_bytes: int = 256 << 20
    """Bodies of waiting requests."""
    max_cost_ms: float = 600_000.0
    """Sum of the prices of waiting requests."""
    ageing_s: float = AGEING_S
    """A class moves up one step when its oldest request has waited this long; sooner if else its deadline came
    first."""
    aged_share: float = 0.05
    """Part of the capacity (by cost) that a class risen by age may take from more urgent ones. Plain ageing has no such
    bound: in a lasting overload everybody is old, and the classes melt into one line."""
    shed_hopeless: bool = True
    """Refuse at once what would pass its deadline in the queue."""
    min_retry_after_s: float = 1.0
    max_retry_after_s: float = 60.0

    def __post_init__(self) -> None:
        """Raises ValueError."""
        for name in ("max_requests", "max_bytes", "max_cost_ms", "ageing_s", "min_retry_after_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"queue.{name} is {getattr(self, name)}; it must be above 0")
        if not 0 <= self.aged_share < 1:
            raise ValueError(f"queue.aged_share is {self.aged_share}; it must be in [0, 1)")
        if self.max_retry_after_s < self.min_retry_after_s:
            raise ValueError(
                f"queue.max_retry_after_s is {self.max_retry_after_s}; it must be at least {self.min_retry_after_s}"
            )


@dataclass(frozen=True, slots=True)
class HeadroomConfig:
    """How many slots are kept free for P0, whose 100 ms are shorter than the requests that run."""

    miss_fraction: float = 0.009
    """P0 requests that may find no slot in time, in the mean. The promise is 1 %."""
    safety: float = 0.9
    """Part of P0's deadline that the gateway plans with; the rest is the backend's."""
    assumed_share: float = 0.05
    """Part of the capacity P0 is assumed to use before it was seen. 0 where no tenant may use P0."""
    promised_share: float = 0.5
    """Above this measured part of the capacity P0 is a flood, for which nothing is kept free."""
    max_fraction: float = 0.25
    """Largest part of a model's slots that is kept free."""

    def __post_init__(self) -> None:
        """Raises ValueError."""
        for name in ("miss_fraction", "safety", "promised_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"headroom.{name} is {getattr(self, name)}; it must be in (0, 1]")
        for name in ("assumed_share", "max_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"headroom.{name} is {getattr(self, name)}; it must be in [0, 1)")
