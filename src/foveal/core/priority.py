"""Priority classes shared by engine and gateway (mission row E10)."""

from __future__ import annotations

import enum

__all__ = ["AGEING_S", "URGENT_FRACTION", "Priority", "effective_priority", "is_urgent"]

URGENT_FRACTION = 0.8
"""A request is urgent once it has waited this fraction of its class deadline."""

AGEING_S = 10.0
"""A waiting request moves up one class for each such period, so that none starves."""


class Priority(enum.IntEnum):
    """Lower is more urgent. The deadline is on queue wait: no VLM can promise it end to end."""

    P0 = 0
    P1 = 1
    P2 = 2

    @property
    def deadline_s(self) -> float:
        """Longest queue wait this class promises, seconds."""
        return _DEADLINE_S[self]


_DEADLINE_S = {Priority.P0: 0.1, Priority.P1: 0.5, Priority.P2: 2.0}


def is_urgent(priority: Priority, waited_s: float) -> bool:
    """True once 80 % of the class deadline is spent."""
    return waited_s >= URGENT_FRACTION * priority.deadline_s


def effective_priority(priority: Priority, waited_s: float, ageing_s: float = AGEING_S) -> int:
    """Class after ageing; may fall below 0, so that an old P2 beats a stream of fresh P0."""
    return int(priority) - int(max(0.0, waited_s) // ageing_s)
