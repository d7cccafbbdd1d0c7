"""Who asks, and what they may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from foveal.core.priority import Priority
from foveal.gateway.config.fields import KEY, Count, Positive, PositiveCount, Range

__all__ = ["ANONYMOUS", "Tenant", "TenantLimits"]


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """None means no limit."""

    requests_per_minute: PositiveCount | None = None
    tokens_per_minute: PositiveCount | None = None
    """Prompt and output tokens; vision tokens count."""
    vision_ms_per_minute: Positive | None = None
    """Encoder time, milliseconds per minute: the unit that hurts."""
    max_concurrent: PositiveCount | None = None
    """Requests in the gateway at the same time, waiting ones included."""
    tokens_per_day: PositiveCount | None = None
    """A quota that survives restarts; days begin at 00:00 UTC."""
    requests_per_day: PositiveCount | None = None


@dataclass(frozen=True, slots=True)
class Tenant:
    id: Annotated[str, KEY]
    best_priority: Priority = Priority.P1
    """Requests asking for a more urgent class are clamped to it."""
    weight: Annotated[float, Range(above=0.0)] = 1.0
    """Share of capacity relative to other tenants of the same class."""
    limits: TenantLimits = TenantLimits()
    models: frozenset[str] | None = None
    """Models the tenant may use; None for all."""
    burst_s: Positive = 10.0
    """Per-minute limits may be used this far ahead: 60 requests a minute with 10 s allow 10 at once."""
    max_body_bytes: Count | None = None
    """Of one request, where smaller than the gateway's own limit."""


ANONYMOUS = Tenant("anonymous")
"""Everybody, where no keys are configured."""
