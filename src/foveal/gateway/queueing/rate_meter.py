"""Rates measured with exponential forgetting."""

from __future__ import annotations

from math import exp

__all__ = ["RateMeter"]

STEP = 0.002
"""Part of the window within which nothing is forgotten."""


class RateMeter:
    """Amount per second over about the last `window_s`, right from the first second on (bias is corrected).

    Time is whatever the caller counts: the clock, or only the seconds in which something waited.
    """

    def __init__(self, window_s: float, start_s: float, settle_s: float = 0.0) -> None:
        """During the first `settle_s` the rate is that over `settle_s`: one early event is not a stream."""
        self._window_s = window_s
        # Forgetting in steps: at a thousand requests per second each would take its own exp() for nothing.
        self._step_s = window_s * STEP
        self._settle_s = settle_s
        self._start_s = start_s
        self._last_s = start_s
        self._amount = 0.0
        self.total = 0.0
        """Sum of all amounts."""

    def add(self, amount: float, now_s: float) -> None:
        self._decay(now_s)
        self._amount += amount
        self.total += amount

    def rate(self, now_s: float) -> float:
        """Amount per second; 0 before any time has passed."""
        self._decay(now_s)
        age_s = max(now_s - self._start_s, self._settle_s)
        seen = self._window_s * (1.0 - exp(-age_s / self._window_s))
        return self._amount / seen if seen > 0 else 0.0

    def seen_s(self, now_s: float) -> float:
        """Seconds since the start."""
        return now_s - self._start_s

    def _decay(self, now_s: float) -> None:
        if now_s > self._last_s + self._step_s:
            self._amount *= exp((self._last_s - now_s) / self._window_s)
            self._last_s = now_s
