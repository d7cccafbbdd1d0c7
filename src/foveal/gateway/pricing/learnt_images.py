"""Image size -> tokens, learnt from the usage of answers of a family that no rule describes."""

from __future__ import annotations

import math
import statistics
from collections import OrderedDict, deque

__all__ = ["LearntImages"]

_KEPT_PER_SIZE = 5
_KEPT_PER_BIN = 15
_MOST_SIZES = 1024
_BINS_PER_OCTAVE = 2
_PIXELS_PER_TOKEN = 28 * 28
_LEAST_TOKENS, _MOST_TOKENS = 64, 4096
_UNKNOWN_SIZE_TOKENS = 512


class LearntImages:
    """Medians, because a cached or truncated prompt now and then must not move the price.

    A size that was seen has its own; others go by bins of half an octave of pixels, between which the estimate follows a line.
    """

    def __init__(self) -> None:
        self._sizes: OrderedDict[tuple[int, int, str], deque[float]] = OrderedDict()
        self._bins: dict[int, deque[float]] = {}
        self._unknown: deque[float] = deque(maxlen=_KEPT_PER_BIN)

    @property
    def has_learnt(self) -> bool:
        return bool(self._bins)

    def estimate(self, width: int, height: int, detail: str) -> int:
        """Tokens of one image; width and height 0 if they are not known."""
        if width <= 0 or height <= 0:
            seen: list[float] = [value for values in self._bins.values() for value in values]
            return round(statistics.median([*self._unknown, *seen])) if self._unknown or seen else _UNKNOWN_SIZE_TOKENS
        own = self._sizes.get((width, height, detail))
        if own:
            return max(1, round(statistics.median(own)))
        return max(1, round(self._by_pixels(width * height)))

    def learn(self, width: int, height: int, detail: str, tokens: float) -> None:
        if tokens < 0 or not math.isfinite(tokens):
            return
        if width <= 0 or height <= 0:
            self._unknown.append(tokens)
            return
        key = (width, height, detail)
        own = self._sizes.setdefault(key, deque(maxlen=_KEPT_PER_SIZE))
        own.append(tokens)
        self._sizes.move_to_end(key)
        if len(self._sizes) > _MOST_SIZES:
            self._sizes.popitem(last=False)
        self._bins.setdefault(round(_place(width * height)), deque(maxlen=_KEPT_PER_BIN)).append(tokens)

    def _by_pixels(self, pixels: int) -> float:
        if not self._bins:
            return min(_MOST_TOKENS, max(_LEAST_TOKENS, pixels / _PIXELS_PER_TOKEN))
        place = _place(pixels)
        below = max((number for number in self._bins if number <= place), default=None)
        above = min((number for number in self._bins if number > place), default=None)
        if below is None or above is None:
            # Beyond what was seen: families have a least and a most.
            edge = above if below is None else below
            assert edge is not None
            return statistics.median(self._bins[edge])
        low, high = statistics.median(self._bins[below]), statistics.median(self._bins[above])
        return low + (high - low) * (place - below) / (above - below)


def _place(pixels: int) -> float:
    return _BINS_PER_OCTAVE * math.log2(pixels)
