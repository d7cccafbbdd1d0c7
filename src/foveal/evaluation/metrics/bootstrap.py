"""Percentile bootstrap intervals, paired where two models answered the same items.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 13. Items, not tokens, are drawn: tokens of one
text window or questions of one kind are not independent of each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Interval", "mean_difference_interval", "mean_interval", "perplexity_ratio_interval", "resampled_sums"]

RESAMPLES = 2000
_CELLS_AT_ONCE = 4_000_000
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the bounds that hold it with the stated confidence."""

    estimate: float
    low: float
    high: float
    confidence: float = 0.95


def mean_interval(
    values: npt.ArrayLike, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Of the mean of `values` [n]. The same seed gives the same bounds."""
    items = _items(values)
    means = resampled_sums(items[:, None], resamples=resamples, seed=seed)[:, 0] / len(items)
    return _interval(float(items.mean()), means, confidence)


def mean_difference_interval(
    ours: npt.ArrayLike,
    theirs: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Of mean(ours) - mean(theirs), paired: item i of both is drawn together, so that what is hard for both cancels."""
    first, second = _items(ours), _items(theirs)
    if len(first) != len(second):
        raise ValueError(f"{len(first)} items against {len(second)}; pairs need the same items")
    return mean_interval(first - second, confidence=confidence, resamples=resamples, seed=seed)


def perplexity_ratio_interval(
    our_nll: npt.ArrayLike,
    their_nll: npt.ArrayLike,
    tokens: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Of perplexity(ours) / perplexity(theirs) over the same windows: sums of nats [n], and their tokens [n]."""
    columns = np.stack([_items(our_nll) - _items(their_nll), _items(tokens)], axis=1)

    def ratio(sums: Floats) -> Floats:
        return np.exp(sums[..., 0] / sums[..., 1])

    drawn = ratio(resampled_sums(columns, resamples=resamples, seed=seed))
    return _interval(float(ratio(columns.sum(axis=0))), drawn, confidence)


def resampled_sums(columns: Floats, *, resamples: int, seed: int) -> Floats:
    """Sums of `columns` [n, c] over n items drawn with replacement, `resamples` times: [resamples, c]."""
    rng = np.random.default_rng(seed)
    count = len(columns)
    at_once = max(1, _CELLS_AT_ONCE // count)
    parts = []
    for start in range(0, resamples, at_once):
        drawn = rng.integers(0, count, size=(min(at_once, resamples - start), count))
        parts.append(columns[drawn].sum(axis=1))
    return np.concatenate(parts)


def _items(values: npt.ArrayLike) -> Floats:
    items = np.asarray(values, dtype=np.float64)
    if items.ndim != 1 or not len(items):
        raise ValueError(f"values have shape {items.shape}; a list of at least one number is needed")
    return items


def _interval(estimate: float, drawn: Floats, confidence: float) -> Interval:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must be between 0 and 1")
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high), confidence)
