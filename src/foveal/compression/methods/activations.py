"""Static inputs: the range of a linear's input, found on calibration data. Dynamic ones need nothing."""

from __future__ import annotations

import torch

from foveal.compression.input_statistics import InputStatistics
from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.observers import Observer, value_range
from foveal.kernels.quantisation.scheme import ActivationScheme
from foveal.models.quantised.input_rounding import InputRounding, StaticInput

__all__ = ["calibrate_input"]

_SHARES = tuple(1 - 0.02 * step for step in range(40))
_SMALLEST = 1e-10


def calibrate_input(
    statistics: InputStatistics, scheme: ActivationScheme, observer: Observer = "minmax", *, k_sigma: float = 6.0
) -> StaticInput:
    """One scale for the whole input, by `observer`: the full range, percentiles, mean +- `k_sigma` standard deviations,
    or the share of the full range with the least squared error.

    Only the full range looks at every token; the others look at the kept sample. Raises ConfigurationError if no input
    was seen.
    """
    low, high = float(statistics.minimum.min()), float(statistics.maximum.max())
    if not low <= high:
        raise ConfigurationError(
            "a static input scale needs calibration data, and none reached this linear. Add samples."
        )
    rows = statistics.sampled(held_out=False)
    if observer in ("percentile", "sigma"):
        low, high = (float(end) for end in value_range(rows.reshape(1, -1), observer, k_sigma=k_sigma))
    elif observer == "mse":
        errors = [_squared_error(rows, scheme, _static(low * share, high * share, scheme)) for share in _SHARES]
        share = _SHARES[errors.index(min(errors))]
        low, high = low * share, high * share
    return _static(low, high, scheme)


def _static(low: float, high: float, scheme: ActivationScheme) -> StaticInput:
    bottom, top = scheme.code_range
    low, high = min(low, 0.0), max(high, 0.0)
    if scheme.symmetric:
        return StaticInput(torch.tensor([max(-low, high, _SMALLEST) / top]))
    scale = max(high - low, _SMALLEST) / (top - bottom)
    return StaticInput(torch.tensor([scale]), torch.tensor([round(-low / scale)], dtype=torch.int32))


def _squared_error(rows: torch.Tensor, scheme: ActivationScheme, static: StaticInput) -> float:
    return float((InputRounding(scheme, static)(rows) - rows).pow(2).mean())
