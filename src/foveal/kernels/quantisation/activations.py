"""The input of a quantised linear: rounded per token at run time, or on one calibrated grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation import integer_grid
from foveal.kernels.quantisation.scheme import ActivationScheme

__all__ = ["QuantisedActivation", "fake_quantise", "quantise_activation"]


@dataclass(frozen=True, slots=True)
class QuantisedActivation:
    """Integer inputs of a linear."""

    codes: Tensor
    """[..., features]: int8 where symmetric, uint8 where asymmetric."""
    scale: Tensor
    """float32 [..., 1], one per token; [] for a calibrated grid."""
    zero_point: Tensor | None
    """int32 in the shape of `scale`, asymmetric only."""

    def dequantise(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return integer_grid.decode(self.codes, self.scale, self.zero_point).to(dtype)


def quantise_activation(
    values: Tensor, scheme: ActivationScheme, scale: Tensor | None = None, zero_point: Tensor | None = None
) -> QuantisedActivation:
    """Codes of values [..., features].

    A dynamic scheme finds min and max of every token (the last axis); a static one takes the scale [] and zero point []
    that calibration found. Raises ConfigurationError for a static scheme without them.
    """
    values = values.float()
    if scheme.dynamic:
        low, high = torch.aminmax(values, dim=-1, keepdim=True)
        scale, zero_point = integer_grid.scale_for_range(low, high, scheme.code_range, symmetric=scheme.symmetric)
    elif scale is None or (zero_point is None and not scheme.symmetric):
        raise ConfigurationError(
            f"{scheme.name} rounds its input on a calibrated grid, and none was given. Calibrate, or use a dynamic scheme."
        )
    codes = integer_grid.encode(values, scale, zero_point, scheme.code_range)
    return QuantisedActivation(codes.to(torch.int8 if scheme.symmetric else torch.uint8), scale, zero_point)


def fake_quantise(
    values: Tensor, scheme: ActivationScheme, scale: Tensor | None = None, zero_point: Tensor | None = None
) -> Tensor:
    """`values` as a linear with this scheme sees them: rounded to codes and back, same shape and dtype."""
    return quantise_activation(values, scheme, scale, zero_point).dequantise(values.dtype)
