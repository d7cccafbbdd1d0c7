"""Interval of a share, honest also for few items and for shares of 0 and 1."""

from __future__ import annotations

import math
from statistics import NormalDist

from foveal.evaluation.metrics.bootstrap import Interval

__all__ = ["wilson_interval"]


def wilson_interval(successes: int, items: int, *, confidence: float = 0.95) -> Interval:
    """Of successes / items. Raises ValueError without items. Source: Wilson 1927, score interval."""
    if not 0 <= successes <= items or not items:
        raise ValueError(f"{successes} successes in {items} items: there must be at least one item")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / items
    centre = (share + z * z / (2 * items)) / (1 + z * z / items)
    reach = z / (1 + z * z / items) * math.sqrt(share * (1 - share) / items + (z / (2 * items)) ** 2)
    return Interval(share, max(0.0, centre - reach), min(1.0, centre + reach), confidence)
