"""How requests wait, how failures are hidden, and how long anything may take."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from foveal.core.priority import AGEING_S, Priority
from foveal.gateway.config.fields import (
    ByteSize,
    Count,
    Fraction,
    Milliseconds,
    PositiveCount,
    Range,
    Seconds,
)

__all__ = [
    "BreakerConfig",
    "EjectionConfig",
    "HealthConfig",
    "HedgeConfig",
    "QueueConfig",
    "QueueDeadlines",
    "RetryConfig",
    "TimeoutConfig",
    "UpstreamTlsConfig",
]

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDeadlines:
    """Longest wait in the queue before a request of the class is refused (503) or sent to the fallback, seconds."""

    p0: Seconds = 1.0
    p1: Seconds = 10.0
    p2: Seconds = 30.0

    def of(self, priority: Priority) -> float:
        return (self.p0, self.p1, self.p2)[priority]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueConfig:
    """Bounds over all models; what exceeds one is refused, the least urgent first."""

    max_requests: PositiveCount = 1024
    max_cost_s: Seconds = 120.0
    """Expected backend time of everything that waits."""
    max_bytes: ByteSize = 256 * MIB
    """Bodies of everything that waits."""
    max_tenant_share: Annotated[float, Range(above=0.0, most=1.0)] = 0.5
    """Of `max_requests` and `max_cost_s` that one tenant may fill while others wait."""
    ageing_s: Seconds = AGEING_S
    """A waiting request moves up one class for each such period."""
    deadlines_s: QueueDeadlines = QueueDeadlines()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryConfig:
    """Only before the first byte of an answer."""

    max_attempts: PositiveCount = 3
    """Of one request, the first one included; 1 never retries."""
    budget: Fraction = 0.2
    """Retries per request over a window, so that retries cannot double an outage."""
    budget_floor_per_s: Annotated[float, Range(0.0)] = 3.0
    """Retries that are always allowed, for quiet times."""
    backoff_ms: Milliseconds = 10.0
    """Before the second attempt on the same backend, doubled for each further one; another backend is tried at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeConfig:
    """A second backend is asked when the first is slower than it usually is; the earlier first byte wins."""

    enabled: bool = False
    quantile: Annotated[float, Range(0.5, 0.999)] = 0.95
    """Of the time to the first byte, after which the second one is asked."""
    min_delay_ms: Milliseconds = 50.0
    budget: Fraction = 0.05
    """Hedges per request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerConfig:
    """Per backend. Opens on consecutive failures or on their share; then probes with single requests."""

    consecutive_failures: PositiveCount = 5
    failure_share: Fraction = 0.5
    min_requests: PositiveCount = 20
    """In the window, before `failure_share` counts."""
    window_s: Seconds = 10.0
    open_s: Seconds = 2.0
    """Before the first probe; doubled after each failed one."""
    max_open_s: Seconds = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthConfig:
    """Active checks of each backend."""

    path: str = "/health"
    interval_s: Seconds = 2.0
    timeout_s: Seconds = 2.0
    unhealthy_after: PositiveCount = 2
    """Failed checks in a row."""
    healthy_after: PositiveCount = 1
    """Good checks in a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EjectionConfig:
    """Passive checks: a backend that fails or is far slower than its peers leaves the rotation for a while."""

    max_ejected: Fraction = 0.5
    """Of a model's backends; a lone backend is never ejected for being slow."""
    slow_factor: Annotated[float, Range(1.0)] = 5.0
    """Times the median of its peers' time to the first byte."""
    base_s: Seconds = 5.0
    """First ejection; longer each time."""
    max_s: Seconds = 60.0
    return_s: Seconds = 10.0
    """After it, the backend's share grows from a tenth to all over this time."""
    min_requests: Count = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutConfig:
    connect_s: Seconds = 2.0
    first_byte_s: Seconds = 120.0
    """From the request's last byte to the answer's first body byte."""
    idle_s: Seconds = 60.0
    """Between two reads of an answer."""
    total_s: Seconds = 600.0
    """From the complete body to the last byte of the answer, queueing included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamTlsConfig:
    """For backends with https:// URLs."""

    ca: Path | None = None
    """PEM file of the authorities to trust; absent: the system's."""
    client_certificate: Path | None = field(default=None)
    """PEM file that the gateway shows to backends."""
    client_key: Path | None = field(default=None)
