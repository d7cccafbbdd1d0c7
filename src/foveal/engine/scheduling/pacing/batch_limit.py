"""How many sequences decode at once so that a step of theirs keeps to the target (mission row E11)."""

from __future__ import annotations

from collections import deque

__all__ = ["BatchLimit"]

WINDOW = 100
SHRINK_ABOVE = 1.0
GROW_BELOW = 0.8
FEWEST = 10
"""Steps to have seen since the last change."""


class BatchLimit:
    """One more below 0.8 of the target over the last 100 steps, one less above it; between 1 and `most`.

    Only steps count that decode and nothing else: prompts are held back by the pace, and must not cost a seat.
    """

    def __init__(self, target_s: float, most: int) -> None:
        self._target_s = target_s
        self._most = most
        self._steps: deque[float] = deque(maxlen=WINDOW)
        self.limit = most

    def observe(self, num_rows: int, seconds: float) -> None:
        """A step in which `num_rows` requests decoded.

        Few rows say nothing about a larger limit; and more than the limit, which run on after it was lowered, would lower
        it again and again before it had any effect.
        """
        if seconds <= 0.0 or not 1 <= num_rows <= self.limit:
            return
        self._steps.append(seconds)
        if len(self._steps) < FEWEST:
            return
        share = sum(self._steps) / len(self._steps) / self._target_s
        if share > SHRINK_ABOVE:
            # From what runs: a limit of 64 says nothing while 20 requests are too many.
            self._move(min(self.limit, num_rows) - 1)
        elif share < GROW_BELOW and num_rows >= self.limit:
            self._move(self.limit + 1)

    def _move(self, limit: int) -> None:
        limit = max(1, min(self._most, limit))
        if limit != self.limit:
            self.limit = limit
            self._steps.clear()
