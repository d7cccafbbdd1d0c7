"""A rate limit as a generic cell rate algorithm (GCRA): one number of state, no timer, exact.

The state is the time at which everything taken so far will have been paid for. Source: ITU-T I.371, and Brandur Leach's
"Rate limiting, cells, and GCRA".
"""

from __future__ import annotations

__all__ = ["Rate"]


class Rate:
    """Units per minute, with `burst_s` seconds' worth at once. Times in seconds, from any one clock."""

    __slots__ = ("_paid_at_s",)

    def __init__(self) -> None:
        self._paid_at_s = 0.0

    def wait_s(self, cost: float, per_minute: float, burst_s: float, now_s: float) -> float:
        """Seconds until `cost` units may be taken; 0 now. Takes nothing.

        What costs more than the whole burst is allowed when nothing is owed, and paid off afterwards: a large request
        waits longer than a small one, and is never locked out.
        """
        owed_s = self._paid_at_s - now_s
        if owed_s <= 0.0:
            return 0.0
        cost_s = 60.0 * cost / per_minute
        allowed_s = burst_s - cost_s
        return max(0.0, owed_s - allowed_s) if allowed_s > 0.0 else owed_s

    def take(self, cost: float, per_minute: float, now_s: float) -> None:
        """Takes `cost` units, allowed or not; a negative cost gives back."""
        cost_s = 60.0 * cost / per_minute
        if cost_s >= 0.0:
            self._paid_at_s = max(self._paid_at_s, now_s) + cost_s
        else:
            self._paid_at_s += cost_s
