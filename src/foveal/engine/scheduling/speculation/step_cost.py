"""What a step takes by its number of tokens, as measured lately on this machine with this model."""

from __future__ import annotations

from bisect import bisect_left, insort

__all__ = ["StepCost"]

EXACT_BELOW = 32
GROWTH = 0.35
"""Until measured: time grows with tokens to this power. Reading the weights dominates small steps, computing large ones."""

SPEED_WEIGHT = 0.3
SHAPE_WEIGHT = 0.1
SURPRISE = 3.0
"""A step that takes this many times longer or shorter than expected was disturbed: it counts as that much."""


class StepCost:
    """Seconds of a decode step over T tokens: 1 per row, and 1 per draft.

    Two factors: `speed`, the same for all T, follows each step at once, so that a machine that others use too, or
    contexts that grow, change it and nothing else; the `shape` over T learns slowly from steps next to each other. What
    decisions need is a ratio of two steps, one of which did not happen: readings taken minutes apart would not give it.
    """

    def __init__(self) -> None:
        self._speed: float | None = None
        """Seconds of a step whose shape is 1."""
        self._shape: dict[int, float] = {}
        self._counts: dict[int, int] = {}
        self._sizes: list[int] = []
        """Sorted."""

    def observe(self, num_tokens: int, seconds: float) -> None:
        """A reading. Those of a clock that stands still are left out."""
        if num_tokens < 1 or seconds <= 0.0:
            return
        size = _bucket(num_tokens)
        if self._speed is None:
            self._speed = seconds
            self._learn(size, 1.0)
            return
        if size not in self._shape:
            self._learn(size, seconds / self._speed)
            return
        count = self._counts[size]
        surprise = seconds / (self._speed * self._shape[size])
        surprise = min(max(surprise, 1.0 / SURPRISE), SURPRISE)
        self._learn(size, self._shape[size] * float(surprise ** max(SHAPE_WEIGHT, 1.0 / (count + 2))))
        self._speed *= float(surprise**SPEED_WEIGHT)

    def estimate(self, num_tokens: int) -> float | None:
        """Seconds at the present speed; None before the first reading."""
        return None if self._speed is None else self._speed * self._shape_at(num_tokens)

    def relative(self, num_tokens: int, to: int) -> float:
        """How many times longer a step over `num_tokens` takes than one over `to`."""
        return self._shape_at(num_tokens) / self._shape_at(to)

    def _learn(self, size: int, shape: float) -> None:
        if size not in self._shape:
            insort(self._sizes, size)
        self._shape[size] = shape
        self._counts[size] = self._counts.get(size, 0) + 1

    def _shape_at(self, num_tokens: int) -> float:
        """Between readings linear, beyond them by `GROWTH`."""
        size = _bucket(num_tokens)
        known = self._shape.get(size)
        if known is not None:
            return known
        if not self._sizes:
            return float(size**GROWTH)
        right = bisect_left(self._sizes, size)
        if 0 < right < len(self._sizes):
            low, high = self._sizes[right - 1], self._sizes[right]
            share = (size - low) / (high - low)
            return self._shape[low] * (1 - share) + self._shape[high] * share
        nearest = self._sizes[min(right, len(self._sizes) - 1)]
        return self._shape[nearest] * float((size / nearest) ** GROWTH)


def _bucket(num_tokens: int) -> int:
    """Small numbers as they are, larger ones by eighths of an octave."""
    if num_tokens <= EXACT_BELOW:
        return num_tokens
    step = 1 << (num_tokens.bit_length() - 4)
    return (num_tokens + step // 2) // step * step
