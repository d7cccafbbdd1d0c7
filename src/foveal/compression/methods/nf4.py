"""NF4: 4-bit codes at quantiles of the normal distribution, one maximum per block."""

from __future__ import annotations

import torch

from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.affine import QuantisedWeight, quantise
from foveal.kernels.quantisation.scheme import WeightScheme

__all__ = ["nf4"]


def nf4(weight: torch.Tensor, scheme: WeightScheme) -> QuantisedWeight:
    """Weight [out, in] -> the nearest codes. Needs no calibration. Source: QLoRA, arXiv 2305.14314, appendix E.

    Raises ConfigurationError for a scheme of another kind.
    """
    if scheme.kind != "nf4":
        raise ConfigurationError(f"method nf4 was asked for scheme {scheme.name}. Use nf4-g64, or method rtn.")
    return quantise(weight, scheme)
