"""Image size -> tokens, learnt from the usage of answers of a family that no rule describes."""

from __future__ import annotations

import math
import statistics
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence

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

    A size that was seen has its own; others go by bins of half an octave of pixels, between which the estimate follows a line:
    first among pictures of the same shape (families with tiles differ by it), else among all.
    """

    def __init__(self) -> None:
        self._sizes: OrderedDict[tuple[int, int, str], deque[float]] = OrderedDict()
        self._bins: dict[int, deque[float]] = {}
        self._bins_of_shape: dict[int, dict[int, deque[float]]] = {}
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
        place = _place(width * height)
        shaped = self._bins_of_shape.get(_shape(width, height), {})
        alike = any(abs(number - place) <= _BINS_PER_OCTAVE for number in shaped)
        return max(1, round(_on_a_line(shaped if alike else self._bins, place)))

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
        number = round(_place(width * height))
        for bins in (self._bins, self._bins_of_shape.setdefault(_shape(width, height), {})):
            bins.setdefault(number, deque(maxlen=_KEPT_PER_BIN)).append(tokens)


def _on_a_line(bins: Mapping[int, Sequence[float]], place: float) -> float:
    if not bins:
        return min(_MOST_TOKENS, max(_LEAST_TOKENS, math.exp2(place / _BINS_PER_OCTAVE) / _PIXELS_PER_TOKEN))
    below = max((number for number in bins if number <= place), default=None)
    above = min((number for number in bins if number > place), default=None)
    if below is None or above is None:
        # Beyond what was seen: families have a least and a most.
        edge = above if below is None else below
        assert edge is not None
        return float(statistics.median(bins[edge]))
    low, high = statistics.median(bins[below]), statistics.median(bins[above])
    return float(low + (high - low) * (place - below) / (above - below))


def _place(pixels: int) -> float:
    return _BINS_PER_OCTAVE * math.log2(pixels)


def _shape(width: int, height: int) -> int:
    """Third of an octave of the ratio of the sides; very long pictures share one."""
    return max(-6, min(6, round(3 * math.log2(width / height))))
