"""A request's place in the queue, and the word it gets when it loses that place."""

from __future__ import annotations

import enum

import msgspec

from foveal.core.priority import Priority

__all__ = ["Shed", "ShedReason", "Ticket"]


# Structs: every request makes some of these, and frozen dataclasses are ten times slower to make. A ticket is equal
# to itself only, so that it can be a key.
class Ticket(msgspec.Struct, frozen=True, eq=False):
    id: str
    model: str
    tenant: str
    priority: Priority
    cost_ms: float
    """Price.cost_ms; above 0."""
    arrival_s: float
    """When the gateway had the request. A request that is tried again keeps it."""
    deadline_s: float
    """From here on nobody waits for the answer any more: the client's time-out or the queue's."""
    num_bytes: int = 0
    """Size of the body that waits with it."""
    weight: float = 1.0
    """Tenant.weight; above 0."""
    excluded: frozenset[str] = frozenset()
    """Backends it failed on; they are taken only when there is no other."""


class ShedReason(enum.Enum):
    FULL = "full"
    """Queue at its limit, and nobody in it is less important."""
    EVICTED = "evicted"
    """Pushed out by a more urgent class, or by a tenant that holds less of the queue."""
    HOPELESS = "hopeless"
    """At the measured rate it would pass its deadline in the queue."""
    EXPIRED = "expired"
    """Passed its deadline in the queue."""


class Shed(msgspec.Struct, frozen=True):
    ticket: Ticket
    reason: ShedReason
    retry_after_s: float
    """When a request like it would find room, at the measured rate and after those told so before it. Seconds."""
