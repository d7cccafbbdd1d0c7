"""How the range of a quantiser is chosen from values: min-max, mean +- k sigma, percentile."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from foveal.core.errors import ConfigurationError

__all__ = ["Observer", "value_range"]

Observer = Literal["minmax", "sigma", "percentile", "mse"]
"""`mse` starts from min-max and searches a smaller range for the least squared error."""


def value_range(
    values: Tensor, observer: Observer, *, k_sigma: float = 3.0, percentile: float = 99.9
) -> tuple[Tensor, Tensor]:
    """Low and high [..., 1] of values [..., n] along the last axis.

    sigma: mean -+ `k_sigma` standard deviations (k = 3 covers 99.7 % of a Gaussian). percentile: the range that leaves
    out (100 - `percentile`) % at each end. Neither is ever wider than the values. Raises ConfigurationError.
    """
    low, high = torch.aminmax(values, dim=-1, keepdim=True)
    if observer in ("minmax", "mse"):
        return low, high
    if observer == "sigma":
        if k_sigma <= 0:
            raise ConfigurationError(f"k sigma is {k_sigma}; it must be above 0. Use 3 to cover 99.7 % of a Gaussian.")
        mean = values.mean(dim=-1, keepdim=True)
        spread = k_sigma * values.std(dim=-1, keepdim=True, correction=0)
        return torch.maximum(low, mean - spread), torch.minimum(high, mean + spread)
    if observer == "percentile":
        if not 50 < percentile <= 100:
            raise ConfigurationError(f"percentile {percentile} is outside (50, 100]. Use 99.9.")
        ordered = values.sort(dim=-1).values
        return _at(ordered, 1 - percentile / 100), _at(ordered, percentile / 100)
    raise ConfigurationError(f"observer {observer!r} is not known. Use one of minmax, sigma, percentile, mse.")


def _at(ordered: Tensor, fraction: float) -> Tensor:
    """Linear interpolation between the two neighbours of a quantile (torch.quantile stops at 16 million values)."""
    position = fraction * (ordered.shape[-1] - 1)
    below = min(int(position), ordered.shape[-1] - 1)
    above = min(below + 1, ordered.shape[-1] - 1)
    return torch.lerp(ordered[..., below : below + 1], ordered[..., above : above + 1], position - below)
