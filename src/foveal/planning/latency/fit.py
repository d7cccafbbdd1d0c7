"""From measured steps to a latency model, and how far it is off on steps that it has not seen."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foveal.planning.latency.latency_model import LatencyModel, step_features, vision_features
from foveal.planning.latency.nonnegative_fit import fit_nonnegative
from foveal.planning.latency.step_work import StepWork

__all__ = ["FitError", "MeasuredStep", "fit_error", "fit_latency_model"]


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """One design point. A step with images has no rows: the encoder is measured apart from the decoder."""

    name: str
    work: StepWork
    seconds: float
    """Median of the faster half of the rounds."""
    spread: float = 0.0
    """Median absolute deviation over the rounds, as a share of the median: what no model can explain."""
    held_out: bool = False
    """Not fitted: the error is measured on it."""


@dataclass(frozen=True, slots=True)
class FitError:
    """Relative error |predicted - measured| / measured."""

    points: int
    median: float
    p90: float
    noise: float
    """Median spread of the points themselves."""


def fit_latency_model(steps: Sequence[MeasuredStep]) -> LatencyModel:
    """Raises ValueError without a fitted decoder step."""
    fitted = [step for step in steps if not step.held_out]
    decoder = [step for step in fitted if not step.work.images]
    vision = [step for step in fitted if step.work.images]
    if not decoder:
        raise ValueError("no decoder step was measured")
    return LatencyModel(
        tuple(_fit([step_features(step.work) for step in decoder], decoder)),
        tuple(_fit([vision_features(step.work.images) for step in vision], vision)) if vision else None,
    )


def fit_error(model: LatencyModel, steps: Sequence[MeasuredStep]) -> FitError | None:
    """Over `steps`; None if there are none."""
    if not steps:
        return None
    errors = [abs(model.step_s(step.work) / step.seconds - 1.0) for step in steps]
    noise = statistics.median(step.spread for step in steps)
    return FitError(len(errors), statistics.median(errors), float(np.quantile(errors, 0.9)), noise)


def _fit(features: Sequence[tuple[float, ...]], steps: Sequence[MeasuredStep]) -> list[float]:
    seconds = np.array([step.seconds for step in steps])
    return [float(c) for c in fit_nonnegative(np.array(features, dtype=np.float64), seconds)]
