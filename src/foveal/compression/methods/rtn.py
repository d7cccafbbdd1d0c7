"""Round to nearest: every weight on its own. The reference that other methods must beat."""

from __future__ import annotations

from typing import Any

import torch

from foveal.kernels.quantisation.affine import QuantisedWeight, find_scales, quantise
from foveal.kernels.quantisation.scheme import WeightScheme

__all__ = ["rtn"]


def rtn(weight: torch.Tensor, scheme: WeightScheme, *, observer: str = "minmax", **options: Any) -> QuantisedWeight:
    """Weight [out, in] in the scheme's grid; `observer` chooses the range (minmax, mse, percentile, sigma)."""
    if observer == "minmax" or scheme.kind != "int":
        return quantise(weight, scheme)
    return quantise(weight, scheme, *find_scales(weight, scheme, observer=observer, **options))
