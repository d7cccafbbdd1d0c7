"""Stops sending to a backend that fails, and finds out carefully when it is well again."""

from __future__ import annotations

import enum
from collections import deque

from foveal.gateway.resilience.config import BreakerConfig
from foveal.gateway.resilience.outcome import Outcome

__all__ = ["BreakerState", "CircuitBreaker"]


class BreakerState(enum.Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    """One request at a time may try."""


class CircuitBreaker:
    """Fed by the outcomes of requests. Time is an argument."""

    def __init__(self, config: BreakerConfig) -> None:
        self._config = config
        self._recent: deque[bool] = deque(maxlen=config.window)
        self._num_failed = 0
        self._in_a_row = 0
        self._opened_s: float | None = None
        self._reopens = 0
        self._tried_ok = 0

    def reload(self, config: BreakerConfig) -> None:
        """New settings; state and count of failures in a row stay."""
        if config.window != self._config.window:
            self._recent = deque(self._recent, maxlen=config.window)
            self._num_failed = sum(self._recent)
        self._config = config

    def state(self, now_s: float) -> BreakerState:
        if self._opened_s is None:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if now_s >= self._opened_s + self.open_for_s else BreakerState.OPEN

    @property
    def open_for_s(self) -> float:
        """How long it stays open, or stayed open last."""
        return float(min(self._config.max_open_s, self._config.open_s * 2.0 ** min(self._reopens, 30)))

    def half_open_at_s(self) -> float | None:
        """When it lets a request through again; None if closed."""
        return None if self._opened_s is None else self._opened_s + self.open_for_s

    def is_calm(self, outcome: Outcome) -> bool:
        """True if this outcome cannot change the state."""
        return self._opened_s is None and not outcome.is_failure

    def record(self, outcome: Outcome, now_s: float) -> None:
        """A request ended. Neutral outcomes change nothing."""
        if outcome.is_success:
            self._success(now_s)
        elif outcome.is_failure:
            self._failure(outcome, now_s)

    def retry_now(self, now_s: float) -> None:
        """Another source says that the backend is back: let a request try without waiting."""
        if self._opened_s is not None:
            self._reopens = 0
            self._opened_s = min(self._opened_s, now_s - self._config.open_s)
            self._tried_ok = 0

    def _success(self, now_s: float) -> None:
        if self._opened_s is None:
            self._in_a_row = 0
            self._remember(False)
        elif self.state(now_s) is BreakerState.HALF_OPEN:  # else it is a request from before the failures
            self._tried_ok += 1
            if self._tried_ok >= self._config.successes_to_close:
                self._close()

    def _failure(self, outcome: Outcome, now_s: float) -> None:
        state = self.state(now_s)
        if state is BreakerState.OPEN:
            return
        if state is BreakerState.HALF_OPEN:
            self._reopens += 1
            self._open(now_s)
            return
        self._in_a_row += self._config.connect_weight if outcome is Outcome.CONNECT_FAILED else 1
        self._remember(True)
        recent = len(self._recent)
        if self._in_a_row >= self._config.consecutive_failures or (
            recent >= self._config.min_requests and self._num_failed >= self._config.failure_ratio * recent
        ):
            self._open(now_s)

    def _remember(self, failed: bool) -> None:
        if len(self._recent) == self._recent.maxlen:
            self._num_failed -= self._recent[0]
        self._recent.append(failed)
        self._num_failed += failed

    def _open(self, now_s: float) -> None:
        self._opened_s = now_s
        self._tried_ok = 0

    def _close(self) -> None:
        self._opened_s = None
        self._reopens = 0
        self._in_a_row = 0
        self._num_failed = 0
        self._recent.clear()
