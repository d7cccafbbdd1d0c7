"""Whether a failed request is tried again."""

from __future__ import annotations

from foveal.gateway.resilience.config import RetryConfig
from foveal.gateway.resilience.outcome import Outcome
from foveal.gateway.resilience.token_budget import TokenBudget

__all__ = ["RetryPolicy"]


class RetryPolicy:
    """Before the first byte only, for failures that another backend may not have, within attempts, time and budget."""

    def __init__(self, config: RetryConfig, now_s: float) -> None:
        self._config = config
        self._budget = TokenBudget(config.budget_fraction, config.budget_min_per_s, config.budget_burst, now_s)

    def on_request(self) -> None:
        """A request came in (not an attempt of it): the budget grows."""
        self._budget.on_request()

    def may_retry(
        self, outcome: Outcome, attempts: int, client_saw_bytes: bool, now_s: float, deadline_s: float
    ) -> bool:
        """Try again after `attempts` attempts, the last of which ended in `outcome`, if the budget allows it?"""
        return (
            not client_saw_bytes and outcome.may_retry and attempts < self._config.max_attempts and now_s < deadline_s
        )

    def try_spend(self, now_s: float) -> bool:
        """Takes a retry from the budget; False if there is none."""
        return self._budget.try_spend(now_s)

    def backoff_s(self, attempts: int, elsewhere: bool) -> float:
        """Wait before the next attempt: none if another backend takes it, else growing, so that a process that is
        being restarted has a chance."""
        return 0.0 if elsewhere else min(self._config.max_backoff_s, self._config.backoff_s * 2.0 ** (attempts - 1))
