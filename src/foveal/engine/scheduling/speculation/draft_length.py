"""How many tokens to draft for one request."""

from __future__ import annotations

from collections import deque

__all__ = ["DraftLength"]

FIRST = 4
LOWEST = 2
GROW_ABOVE = 0.8
SHRINK_BELOW = 0.4
WINDOW_ROUNDS = 10
FEWEST_ROUNDS = 3
"""Rounds to have seen before the length moves."""


class DraftLength:
    """Starts at 4; one more above 0.8 acceptance over the last 10 rounds, one less below 0.4; between 2 and `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lowest = min(LOWEST, most)
        self.tokens = min(FIRST, most)
        self._rounds: deque[tuple[int, int]] = deque(maxlen=WINDOW_ROUNDS)

    def observe(self, drafted: int, accepted: int) -> None:
        self._rounds.append((drafted, accepted))
        if len(self._rounds) < FEWEST_ROUNDS:
            return
        share = sum(a for _, a in self._rounds) / sum(d for d, _ in self._rounds)
        if share > GROW_ABOVE:
            self.tokens = min(self._most, self.tokens + 1)
        elif share < SHRINK_BELOW:
            self.tokens = max(self._lowest, self.tokens - 1)
