"""How long an answer is likely to be."""

from __future__ import annotations

__all__ = ["OutputTokens"]

_MEMORY = 64


class OutputTokens:
    """Mean output of a choice, moving over the last answers; a request's own limit caps it."""

    def __init__(self, initial: int) -> None:
        self._mean = float(initial)
        self._seen = 0

    def estimate(self, max_tokens: int | None) -> int:
        """At least 1."""
        expected = max(1, round(self._mean))
        return expected if max_tokens is None else max(1, min(expected, max_tokens))

    def learn(self, tokens: float, max_tokens: int | None) -> None:
        if tokens < 0:
            return
        if max_tokens is not None and max_tokens < self._mean and tokens >= max_tokens:
            return  # cut off below the mean: it only says that the answer would have been longer
        self._seen += 1
        self._mean += (tokens - self._mean) / min(self._seen, _MEMORY)
