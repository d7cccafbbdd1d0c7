"""Whether and when a second attempt is started beside a late one."""

from __future__ import annotations

from collections import deque

from foveal.gateway.resilience.config import HedgeConfig
from foveal.gateway.resilience.token_budget import TokenBudget

__all__ = ["HedgePolicy"]

REMEMBERED = 512
"""Recent requests of which the quantile is taken."""
REFRESH_EVERY = 32
BURST = 8.0


class HedgePolicy:
    """The delay is a quantile of first-byte time per priced time, times this request's price: a large picture is not
    late because small ones are quick. Source: Dean, Barroso, "The Tail at Scale", 2013."""

    def __init__(self, config: HedgeConfig, now_s: float) -> None:
        self._config = config
        self._ratios: deque[float] = deque(maxlen=REMEMBERED)
        self._since_refresh = 0
        self._quantile: float | None = None
        self._budget = TokenBudget(config.budget_fraction, 0.0, BURST, now_s)

    def record(self, first_byte_s: float, cost_ms: float) -> None:
        """A first byte came after `first_byte_s`, without a hedge's help."""
        self._ratios.append(first_byte_s * 1e3 / cost_ms)
        self._budget.on_request()
        self._since_refresh += 1
        if len(self._ratios) >= self._config.min_requests and (
            self._quantile is None or self._since_refresh >= REFRESH_EVERY
        ):
            self._since_refresh = 0
            ordered = sorted(self._ratios)
            self._quantile = ordered[int(self._config.quantile * (len(ordered) - 1))]

    def delay_s(self, cost_ms: float, busy_fraction: float) -> float | None:
        """Seconds after which a second attempt may start; None for none. `busy_fraction` is the part of the model's
        slots in use."""
        if not self._config.enabled or self._quantile is None or busy_fraction > self._config.max_load:
            return None
        return max(self._config.min_delay_s, self._quantile * cost_ms / 1e3)

    def try_spend(self, now_s: float) -> bool:
        """The delay has passed: may this one hedge?"""
        return self._config.enabled and self._budget.try_spend(now_s)
