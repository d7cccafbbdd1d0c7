"""A budget that grows with traffic: retries and hedges may be a part of the requests, never more."""

from __future__ import annotations

__all__ = ["TokenBudget"]


class TokenBudget:
    """Each request adds `fraction` of a token, each second `per_s`; at most `burst` are saved up. Starts full."""

    def __init__(self, fraction: float, per_s: float, burst: float, now_s: float) -> None:
        self._fraction = fraction
        self._per_s = per_s
        self._burst = burst
        self._tokens = burst
        self._last_s = now_s

    def on_request(self) -> None:
        self._tokens = min(self._burst, self._tokens + self._fraction)

    def try_spend(self, now_s: float) -> bool:
        """Take a token; False if there is none."""
        self._tokens = min(self._burst, self._tokens + self._per_s * max(0.0, now_s - self._last_s))
        self._last_s = max(now_s, self._last_s)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
