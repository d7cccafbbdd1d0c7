"""FP8 E4M3 (no infinities, largest value 448) through torch's own type; values beyond the range saturate."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

__all__ = ["E4M3_MAX", "cell_mse", "decode", "encode", "scale_for_range"]

E4M3_MAX = 448.0

_DTYPE = torch.float8_e4m3fn
_SMALLEST_SCALE = 2.0**-24
_MANTISSA_BITS = 3
_LOWEST_EXPONENT = -6


def scale_for_range(low: Tensor, high: Tensor) -> Tensor:
    """max(|low|, |high|) / 448, or one for a range of zeros."""
    scale = torch.maximum(high, -low) / E4M3_MAX
    return torch.where(scale > 0, scale.clamp_min(_SMALLEST_SCALE), torch.ones_like(scale))


def encode(values: Tensor, scale: Tensor) -> Tensor:
    """float8_e4m3fn codes; torch turns values beyond 448 into NaN, so they are clamped before."""
    return (values / scale).clamp_(-E4M3_MAX, E4M3_MAX).to(_DTYPE)


def decode(codes: Tensor, scale: Tensor) -> Tensor:
    return codes.to(scale.dtype) * scale


def cell_mse(codes: Tensor) -> Tensor:
    """Expected squared error, float32 and in units of the scale squared, of values spread evenly over the cell of each
    code: spacing^2 / 12 within a binade; a power of two has a cell of half that reach below it."""
    return _cell_mse_of_all().to(codes.device)[codes.view(torch.uint8).int()]


@cache
def _cell_mse_of_all() -> Tensor:
    """[256], by the bits of the code."""
    values = torch.arange(256, dtype=torch.uint8).view(_DTYPE).float()
    fraction, exponent = torch.frexp(values.abs())
    exponent = torch.where(fraction == 0, _LOWEST_EXPONENT, exponent - 1).clamp_min(_LOWEST_EXPONENT)
    above = torch.exp2((exponent - _MANTISSA_BITS).float()) / 2
    at_the_foot = (fraction == 0.5) & (exponent > _LOWEST_EXPONENT)
    below = torch.where(at_the_foot, above / 2, above)
    return (below**3 + above**3) / (3 * (below + above))
