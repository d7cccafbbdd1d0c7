"""A rate limit as a generic cell rate algorithm (GCRA): one number of state, no timer, exact.

The state is the time at which everything taken so far will have been paid for. Source: ITU-T I.371, and Brandur Leach's
"Rate limiting, cells, and GCRA".
"""

from __future__ import annotations

__all__ = ["Rate"]


class Rate:
    """What is taken costs seconds: 60 / (units per minute) for each unit. `now_s` is from any one clock."""

    __slots__ = ("_paid_at_s",)

    def __init__(self) -> None:
        self._paid_at_s = 0.0

    def wait_s(self, cost_s: float, burst_s: float, now_s: float) -> float:
        """Seconds until `cost_s` may be taken; 0 now. Takes nothing.

        At most `burst_s` may be owed. What costs more is allowed when nothing is owed, and paid off afterwards: a large
        request waits longer than a small one, and is never locked out.
        """
        owed_s = self._paid_at_s - now_s
        if owed_s <= 0.0:
            return 0.0
        allowed_s = burst_s - cost_s
        return max(0.0, owed_s - allowed_s) if allowed_s > 0.0 else owed_s

    def take(self, cost_s: float, now_s: float) -> None:
        """Takes it, allowed or not; a negative cost gives back."""
        if cost_s >= 0.0:
            self._paid_at_s = max(self._paid_at_s, now_s) + cost_s
        else:
            self._paid_at_s += cost_s
