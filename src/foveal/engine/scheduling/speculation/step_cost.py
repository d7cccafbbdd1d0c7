"""What a step takes by its number of tokens, as measured lately on this machine with this model."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from statistics import median_low

__all__ = ["StepCost"]

READINGS = 9
"""Per number of tokens; their median counts, because single steps are slow for reasons of their own."""

EXACT_BELOW = 32
GROWTH = 0.35
"""Until measured: seconds grow with tokens to this power. Reading the weights dominates small steps, computing large ones."""


class StepCost:
    """Seconds of a decode step over T tokens: 1 per row, and 1 per draft."""

    def __init__(self) -> None:
        self._readings: dict[int, deque[float]] = {}
        self._medians: dict[int, float] = {}
        self._sizes: list[int] = []
        """Sorted."""

    def observe(self, num_tokens: int, seconds: float) -> None:
        if num_tokens < 1 or seconds <= 0.0:
            return
        size = _bucket(num_tokens)
        if size not in self._readings:
            self._readings[size] = deque(maxlen=READINGS)
            insort(self._sizes, size)
        readings = self._readings[size]
        readings.append(seconds)
        self._medians[size] = median_low(readings)

    def estimate(self, num_tokens: int) -> float | None:
        """Seconds; None before the first reading. Between readings linear, beyond them by `GROWTH`."""
        if not self._sizes:
            return None
        size = _bucket(num_tokens)
        known = self._medians.get(size)
        if known is not None:
            return known
        right = bisect_left(self._sizes, size)
        if 0 < right < len(self._sizes):
            low, high = self._sizes[right - 1], self._sizes[right]
            share = (size - low) / (high - low)
            return self._medians[low] * (1 - share) + self._medians[high] * share
        nearest = self._sizes[min(right, len(self._sizes) - 1)]
        return self._medians[nearest] * float((size / nearest) ** GROWTH)

    def relative(self, num_tokens: int, to: int) -> float:
        """estimate(num_tokens) / estimate(to), by `GROWTH` alone before the first reading."""
        seconds, base = self.estimate(num_tokens), self.estimate(to)
        if seconds is None or base is None:
            return float((num_tokens / to) ** GROWTH)
        return seconds / base


def _bucket(num_tokens: int) -> int:
    """Small numbers as they are, larger ones by eighths of an octave."""
    if num_tokens <= EXACT_BELOW:
        return num_tokens
    step = 1 << (num_tokens.bit_length() - 4)
    return (num_tokens + step // 2) // step * step
