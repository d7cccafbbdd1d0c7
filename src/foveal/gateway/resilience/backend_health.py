"""What is known of one backend's health: active checks, its requests, comparison with its peers."""

from __future__ import annotations

from foveal.gateway.backends.backend import BackendState
from foveal.gateway.resilience.circuit_breaker import BreakerState, CircuitBreaker
from foveal.gateway.resilience.config import HealthConfig
from foveal.gateway.resilience.outcome import Outcome
from foveal.gateway.resilience.outliers import Slowness

__all__ = ["BackendHealth"]

MAX_SLOW_EJECTIONS = 8
"""Slow ejections in a row after which the time does not grow further."""
SHARE_STEPS = 50
"""The share of a backend that returns grows in so many steps."""
FOREVER = float("inf")
FOREVER_AGO = float("-inf")


class BackendHealth:
    """Time is an argument. A state change by time alone (an open breaker, slow return) is seen by whoever asks."""

    def __init__(self, config: HealthConfig) -> None:
        self._config = config
        self._breaker = CircuitBreaker(config.breaker)
        self._seen = config.interval_s == 0
        self._down = False
        self._probes_failed = 0
        self._probes_ok = 0
        self._out_until_s = FOREVER_AGO
        self._slow_ejections = 0
        self._return_s: float | None = None
        self.slowness = Slowness()

    def reload(self, config: HealthConfig) -> None:
        """New settings; what is known stays."""
        self._config = config
        self._seen = self._seen or config.interval_s == 0
        self._breaker.reload(config.breaker)

    def view(self, now_s: float) -> tuple[BackendState, float, float]:
        """(state, share of its slots, until when both hold if nothing happens). A share of 0 in state RETURNING means
        one request at a time."""
        if not self._seen:
            return BackendState.STARTING, 0.0, FOREVER
        breaker = self._breaker.state(now_s)
        if self._down or breaker is BreakerState.OPEN or now_s < self._out_until_s:
            change_s = self.next_change_s(now_s)
            return BackendState.EJECTED, 0.0, FOREVER if change_s is None else change_s
        if breaker is BreakerState.HALF_OPEN:
            return BackendState.RETURNING, 0.0, FOREVER
        return self._share(now_s)

    def record(self, outcome: Outcome, now_s: float) -> bool:
        """A request to it ended. Returns False if its state is surely the same as before."""
        if self._breaker.is_calm(outcome):
            self._breaker.record(outcome, now_s)
            return False
        before = self._breaker.state(now_s)
        self._breaker.record(outcome, now_s)
        if before is BreakerState.HALF_OPEN and self._breaker.state(now_s) is BreakerState.CLOSED:
            self._return_s = now_s
        return True

    def probed(self, ok: bool, now_s: float) -> None:
        """An active check ended."""
        if not ok:
            self._probes_ok = 0
            self._probes_failed += 1
            self._down = self._down or (self._seen and self._probes_failed >= self._config.failures_to_eject)
            return
        self._probes_failed = 0
        self._probes_ok += 1
        if not self._seen:
            self._seen = True
        elif self._down and self._probes_ok >= self._config.successes_to_return:
            self._down = False
            self._return_s = now_s
            self._breaker.retry_now(now_s)

    def eject_slow(self, now_s: float) -> None:
        """It is far slower than its peers."""
        outlier = self._config.outlier
        if outlier is None:
            return
        self._slow_ejections = min(self._slow_ejections + 1, MAX_SLOW_EJECTIONS)
        self._out_until_s = now_s + outlier.eject_s * self._slow_ejections
        self._return_s = self._out_until_s
        self.slowness = Slowness()

    def praise(self) -> None:
        """Judged among its peers and found well: earlier slow ejections are forgiven."""
        self._slow_ejections = 0

    def is_out_for_slowness(self, now_s: float) -> bool:
        return now_s < self._out_until_s

    def next_change_s(self, now_s: float) -> float | None:
        """When it takes requests again by time alone; None if it does already, or if time alone does not help."""
        if self._down or not self._seen:
            return None
        half_open_s = self._breaker.half_open_at_s()
        until_s = max(self._out_until_s, FOREVER_AGO if half_open_s is None else half_open_s)
        return until_s if until_s > now_s else None

    def _share(self, now_s: float) -> tuple[BackendState, float, float]:
        config = self._config
        elapsed_s = FOREVER if self._return_s is None else max(0.0, now_s - self._return_s)
        if elapsed_s >= config.slow_start_s:
            return BackendState.UP, 1.0, FOREVER
        share = config.first_share + (1.0 - config.first_share) * elapsed_s / config.slow_start_s
        return BackendState.RETURNING, share, now_s + config.slow_start_s / SHARE_STEPS
