"""The number formats of weights and activations, with their limits, and rounding to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.fp8 import E4M3_MAX

__all__ = ["FORMATS", "NumberFormat", "round_to"]


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """A floating-point format."""

    name: str
    bits: int
    exponent_bits: int
    mantissa_bits: int
    largest: float
    dtype: torch.dtype

    @property
    def epsilon(self) -> float:
        """Distance from 1 to the next larger value; rounding is off by at most half of it, relatively."""
        return 2.0**-self.mantissa_bits

    @property
    def smallest_normal(self) -> float:
        return 2.0 ** (2 - 2 ** (self.exponent_bits - 1))


FORMATS = {
    entry.name: entry
    for entry in (
        NumberFormat("fp32", 32, 8, 23, torch.finfo(torch.float32).max, torch.float32),
        NumberFormat("fp16", 16, 5, 10, torch.finfo(torch.float16).max, torch.float16),
        NumberFormat("bf16", 16, 8, 7, torch.finfo(torch.bfloat16).max, torch.bfloat16),
        NumberFormat("fp8", 8, 4, 3, E4M3_MAX, torch.float8_e4m3fn),
    )
}


def round_to(values: Tensor, name: str) -> Tensor:
    """`values` rounded to a floating-point format and back to their own dtype; beyond its largest value they saturate.

    Raises ConfigurationError for a name that is not a format (integers and NF4 need scales: see WeightScheme).
    """
    if name not in FORMATS:
        raise ConfigurationError(f"{name!r} is not a floating-point format. Use one of {', '.join(FORMATS)}.")
    target = FORMATS[name]
    return values.clamp(-target.largest, target.largest).to(target.dtype).to(values.dtype)
