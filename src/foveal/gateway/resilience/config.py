"""Settings of everything that hides failures."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BreakerConfig", "HealthConfig", "HedgeConfig", "OutlierConfig", "RetryConfig"]


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    consecutive_failures: int = 5
    """Opens after so many in a row. A failed connection counts for `connect_weight`."""
    connect_weight: int = 3
    failure_ratio: float = 0.5
    """Opens when this part of the last `window` requests failed, once `min_requests` are in it."""
    window: int = 50
    min_requests: int = 10
    open_s: float = 1.0
    """First time to stay open; doubles with each failed attempt to return."""
    max_open_s: float = 30.0
    successes_to_close: int = 2
    """Requests that must succeed, one after the other, before the backend is trusted again."""

    def __post_init__(self) -> None:
        """Raises ValueError."""
        for name in ("consecutive_failures", "connect_weight", "window", "min_requests", "successes_to_close"):
            if getattr(self, name) < 1:
                raise ValueError(f"breaker.{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 < self.failure_ratio <= 1:
            raise ValueError(f"breaker.failure_ratio is {self.failure_ratio}; it must be in (0, 1]")
        if not 0 < self.open_s <= self.max_open_s:
            raise ValueError(f"breaker.open_s is {self.open_s}; it must be in (0, {self.max_open_s}] (max_open_s)")


@dataclass(frozen=True, slots=True)
class OutlierConfig:
    """A backend that is far worse than its peers is ejected for a while."""

    slowness: float = 5.0
    """Times the median of its peers, in first-byte time per priced time."""
    min_requests: int = 20
    eject_s: float = 30.0
    """First time to stay ejected; grows with each ejection in a row."""
    max_fraction: float = 0.34
    """Largest part of a model's backends that may be out for being slow."""

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.slowness <= 1:
            raise ValueError(f"outlier.slowness is {self.slowness}; it must be above 1")
        if not 0 <= self.max_fraction < 1:
            raise ValueError(f"outlier.max_fraction is {self.max_fraction}; it must be in [0, 1)")


@dataclass(frozen=True, slots=True)
class HealthConfig:
    path: str = "/health"
    interval_s: float = 2.0
    """Between two active checks of a backend; 0 turns them off, and new backends are trusted unseen."""
    timeout_s: float = 1.0
    failures_to_eject: int = 3
    successes_to_return: int = 1
    slow_start_s: float = 10.0
    """A backend that returns grows from `first_share` of its slots to all of them in this time."""
    first_share: float = 0.1
    breaker: BreakerConfig = BreakerConfig()
    outlier: OutlierConfig | None = OutlierConfig()

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.interval_s < 0 or self.timeout_s <= 0 or self.slow_start_s < 0:
            raise ValueError(
                f"health: interval_s {self.interval_s}, timeout_s {self.timeout_s}, slow_start_s {self.slow_start_s}; "
                "interval_s and slow_start_s must be at least 0, timeout_s above 0"
            )
        if not 0 < self.first_share <= 1:
            raise ValueError(f"health.first_share is {self.first_share}; it must be in (0, 1]")
        for name in ("failures_to_eject", "successes_to_return"):
            if getattr(self, name) < 1:
                raise ValueError(f"health.{name} is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True, slots=True)
class RetryConfig:
    max_attempts: int = 3
    """Attempts in all, the first included."""
    budget_fraction: float = 0.2
    """Retries may be this part of the requests, so that they never multiply an overload."""
    budget_min_per_s: float = 1.0
    """Retries allowed whatever the number of requests."""
    budget_burst: float = 32.0
    """Retries that may be saved up: one backend's death fails all it had in flight at once."""
    backoff_s: float = 0.05
    """Wait before the second attempt at the same backend, where there is no other; doubles with each further one."""
    max_backoff_s: float = 1.0

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.max_attempts < 1:
            raise ValueError(f"retry.max_attempts is {self.max_attempts}; it must be at least 1 (the first attempt)")
        for name in ("budget_fraction", "budget_min_per_s", "budget_burst", "backoff_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"retry.{name} is {getattr(self, name)}; it must be at least 0")


@dataclass(frozen=True, slots=True)
class HedgeConfig:
    """A second attempt elsewhere when the first byte is late."""

    enabled: bool = False
    quantile: float = 0.95
    """Of first-byte time per priced time, over recent requests."""
    min_delay_s: float = 0.05
    min_requests: int = 50
    budget_fraction: float = 0.05
    """Hedges may be this part of the requests."""
    max_load: float = 0.7
    """No hedges above this part of slots in use: they would queue behind themselves."""

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not 0 < self.quantile < 1:
            raise ValueError(f"hedge.quantile is {self.quantile}; it must be in (0, 1)")
        if not 0 <= self.budget_fraction <= 1:
            raise ValueError(f"hedge.budget_fraction is {self.budget_fraction}; it must be in [0, 1]")
