"""How long anything may take, and how backends are reached. Queue, retries and health keep theirs beside their code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from foveal.core.priority import Priority
from foveal.gateway.config.fields import Seconds
from foveal.gateway.wire.upstream import UpstreamTimeouts

__all__ = ["QueueDeadlines", "TimeoutConfig", "UpstreamTlsConfig"]


@dataclass(frozen=True, slots=True)
class QueueDeadlines:
    """Longest wait in the queue before a request of the class is refused (503) or sent to the fallback, seconds."""

    p0: Seconds = 1.0
    p1: Seconds = 10.0
    p2: Seconds = 30.0

    def of(self, priority: Priority) -> float:
        return (self.p0, self.p1, self.p2)[priority]


@dataclass(frozen=True, slots=True)
class TimeoutConfig(UpstreamTimeouts):
    """Of one attempt at a backend, and of the whole request. An answer without a stream may take all that is left of
    `total_s` for its first byte, which comes with the last one."""

    total_s: Seconds = 600.0
    """From the complete body to the last byte of the answer, queueing included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamTlsConfig:
    """For backends with https:// URLs."""

    ca: Path | None = None
    """PEM file of the authorities to trust; absent: the system's."""
    client_certificate: Path | None = None
    """PEM file that the gateway shows to backends."""
    client_key: Path | None = None
