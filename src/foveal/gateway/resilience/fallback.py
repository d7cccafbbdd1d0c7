"""When another, usually smaller, model answers instead."""

from __future__ import annotations

import enum
from collections.abc import Collection

__all__ = ["FallbackReason", "fallback_model", "reason_before_queue"]


class FallbackReason(enum.Enum):
    """Goes into the response header and a metric."""

    PRIMARY_DOWN = "primary_down"
    QUEUE_LATE = "queue_late"
    QUEUE_FULL = "queue_full"
    FAILED = "failed"
    """The primary's attempts are used up."""


def reason_before_queue(is_available: bool, expected_wait_s: float | None, patience_s: float) -> FallbackReason | None:
    """Why a request should not even wait for its model; None if it should.

    `is_available`: some backend of it takes requests. `expected_wait_s` None: not known, so hope.
    """
    if not is_available:
        return FallbackReason.PRIMARY_DOWN
    if expected_wait_s is not None and expected_wait_s > patience_s:
        return FallbackReason.QUEUE_LATE
    return None


def fallback_model(fallback: str | None, tried: Collection[str], allowed: Collection[str] | None) -> str | None:
    """`fallback` if the tenant may use it (`allowed` None: all) and it was not tried before: chains may be circles."""
    if fallback is None or fallback in tried or (allowed is not None and fallback not in allowed):
        return None
    return fallback
