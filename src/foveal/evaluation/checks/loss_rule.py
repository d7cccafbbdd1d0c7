"""When is a measured loss a loss?

A loss comes with an interval (paired bootstrap). Four cases, in this order:

    kept          the whole interval is at or below the limit                            passes
    proved        the estimate is over the limit, and the interval excludes "no loss"    fails
    undecided     the interval reaches beyond the ceiling: too few items to tell         fails, unless told otherwise
    within noise  the rest: no loss over the limit is proved, and none beyond the ceiling is possible    passes

The ceiling (a few times the limit) keeps a small test from waving everything through; what it asks for is more items, and
the finding says how many. With m tasks judged at once, "proved" asks for an interval of confidence 1 - (1 - c) / m
(Bonferroni): else one honest candidate in five would fail one of eight tasks by chance. The pooled check over all tasks, at
confidence c, finds the small loss that is spread over many tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from foveal.evaluation.metrics.bootstrap import Interval
from foveal.evaluation.verdict import Evidence

__all__ = ["accuracy_loss", "classify", "items_needed", "pooled_loss"]

Answers = Sequence[bool]


def classify(loss: Interval, *, limit: float, ceiling: float, surest: Interval | None = None) -> Evidence:
    """See the module. `limit` and `ceiling` are in the loss's unit; `surest` is the interval that proves, if another."""
    if loss.high <= limit:
        return "kept"
    if loss.estimate > limit and (surest or loss).low > 0:
        return "proved"
    return "undecided" if loss.high > ceiling else "within noise"


def accuracy_loss(base: Answers, candidate: Answers, *, confidence: float, resamples: int, seed: int = 0) -> Interval:
    """Percentage points of accuracy that `candidate` loses on the items of `base`, with its paired interval."""
    return pooled_loss([(base, candidate)], confidence=confidence, resamples=resamples, seed=seed)


def pooled_loss(
    pairs: Sequence[tuple[Answers, Answers]], *, confidence: float, resamples: int, seed: int = 0
) -> Interval:
    """Mean over tasks of the accuracy lost, in points; tasks count alike, items are drawn within their task.

    A sample without a single lost item gives a bootstrap interval that ends at no loss, however few the items; the upper
    end is then raised by the exact binomial bound for zero events (about 3.7 / n at 95 %, the "rule of three").
    """
    rng = np.random.default_rng(seed)
    changes = [_changes(base, candidate) for base, candidate in pairs]
    # An item is lost, gained or as before: drawing n items with replacement is one multinomial draw of three counts.
    drawn = sum(
        (counts[:, 0] - counts[:, 1]) / len(base)
        for (lost, gained), (base, _) in zip(changes, pairs, strict=True)
        for counts in [rng.multinomial(len(base), _shares(lost, gained, len(base)), size=resamples)]
    )
    estimate = sum((lost - gained) / len(base) for (lost, gained), (base, _) in zip(changes, pairs, strict=True))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.asarray(drawn), [tail, 1 - tail])
    if not any(lost for lost, _ in changes):
        items = sum(len(base) for base, _ in pairs)
        high = max(high, estimate + len(pairs) * (1 - math.pow(tail, 1 / items)))
    percent = 100 / len(pairs)
    return Interval(percent * estimate, percent * float(low), percent * float(high), confidence)


def items_needed(loss: Interval, items: int, *, ceiling: float) -> int | None:
    """About how many items would bring the interval's upper end below `ceiling`; None where no number would."""
    room = ceiling - max(loss.estimate, 0.0)
    if room <= 0:
        return None
    return math.ceil(items * ((loss.high - loss.estimate) / room) ** 2)


def _changes(base: Answers, candidate: Answers) -> tuple[int, int]:
    """(items lost, items gained)."""
    pairs = list(zip(base, candidate, strict=True))
    return sum(before and not after for before, after in pairs), sum(after and not before for before, after in pairs)


def _shares(lost: int, gained: int, items: int) -> list[float]:
    return [lost / items, gained / items, (items - lost - gained) / items]
