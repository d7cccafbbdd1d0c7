"""How long a process that died stays down: doubling, and forgiven once it has run for a while. Pure."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Backoff", "RestartConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartConfig:
    first_delay_s: float = 0.5
    """Before the first restart in a row."""
    max_delay_s: float = 30.0
    forgiven_after_s: float = 60.0
    """A run at least this long makes the next restart a first one again."""


class Backoff:
    """One per process."""

    def __init__(self, config: RestartConfig) -> None:
        self._config = config
        self.in_a_row = 0
        """Restarts since the last run that lasted."""

    def next_delay_s(self, ran_s: float) -> float:
        """`ran_s` is how long the process lived. Seconds to wait before it is started again."""
        if ran_s >= self._config.forgiven_after_s:
            self.in_a_row = 0
        delay_s: float = min(self._config.first_delay_s * 2**self.in_a_row, self._config.max_delay_s)
        self.in_a_row = min(self.in_a_row + 1, 32)
        return delay_s
