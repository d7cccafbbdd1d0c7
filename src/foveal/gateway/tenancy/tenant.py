"""Who asks, and what they may ask for."""

from __future__ import annotations

from dataclasses import dataclass

from foveal.core.priority import Priority

__all__ = ["ANONYMOUS", "Tenant", "TenantLimits"]


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """None means no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    vision_ms_per_minute: float | None = None
    """Encoder time, milliseconds per minute: the unit that hurts."""
    max_concurrent: int | None = None


@dataclass(frozen=True, slots=True)
class Tenant:
    id: str
    best_priority: Priority = Priority.P1
    """Requests asking for a more urgent class are clamped to it."""
    weight: float = 1.0
    """Share of capacity relative to other tenants of the same class."""
    limits: TenantLimits = TenantLimits()
    models: frozenset[str] | None = None
    """Models the tenant may use; None for all."""


ANONYMOUS = Tenant("anonymous")
"""Everybody, where no keys are configured."""
