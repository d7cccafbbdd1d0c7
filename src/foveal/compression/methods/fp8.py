"""FP8 weights (e4m3): floating point keeps outliers, so no calibration is needed."""

from __future__ import annotations

import torch

from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.affine import QuantisedWeight, quantise
from foveal.kernels.quantisation.scheme import WeightScheme

__all__ = ["fp8"]


def fp8(weight: torch.Tensor, scheme: WeightScheme) -> QuantisedWeight:
    """Weight [out, in], scaled so that its largest value is the largest number of the format.

    Raises ConfigurationError for a scheme of another kind.
    """
    if scheme.kind != "float":
        raise ConfigurationError(f"method fp8 was asked for scheme {scheme.name}. Use fp8, or method rtn.")
    return quantise(weight, scheme)
