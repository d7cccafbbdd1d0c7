"""How far the machine is off its calibration at the moment."""

from __future__ import annotations

import math

__all__ = ["StepCorrection"]

WEIGHT = 0.1
"""Of the latest step."""

SURPRISE = 2.0
"""A step that took this many times longer or shorter than expected was disturbed, and counts as that much."""

RANGE = 8.0


class StepCorrection:
    """Multiplies predictions: measured over predicted, averaged in the logarithm, old steps fading.

    It follows a machine that others use too, a processor that slows down when hot, and what the model leaves out.
    """

    def __init__(self) -> None:
        self._log = 0.0
        self._known = False

    @property
    def factor(self) -> float:
        """1.0 before the first reading."""
        return math.exp(self._log)

    def observe(self, predicted_s: float, measured_s: float) -> None:
        """A step; `predicted_s` without the correction. Readings of a clock that stands still are left out."""
        if predicted_s <= 0.0 or measured_s <= 0.0:
            return
        ratio = math.log(measured_s / predicted_s)
        if self._known:
            limit = math.log(SURPRISE)
            self._log += WEIGHT * min(max(ratio - self._log, -limit), limit)
        else:
            self._log, self._known = ratio, True
        bound = math.log(RANGE)
        self._log = min(max(self._log, -bound), bound)
