"""Block maxima in 8 bits, as bitsandbytes nests them: mean taken off, then a dynamic 8-bit code per 256 blocks.

Source: QLoRA section 3 and bitsandbytes' functional.py. The dynamic code spends its bits on an exponent and, the larger
the value, the more on a fraction (arXiv 1511.04561): fine near zero and near the largest value.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from foveal.kernels.quantisation.scheme import NESTED_BLOCK

__all__ = ["NestedScale", "dynamic_map", "nest"]

_EXPONENT_BITS = 7


@dataclass(frozen=True, slots=True)
class NestedScale:
    """Scales [out, groups] in 8 bits: value = dynamic_map()[codes] * absmax (per 256, row by row) + offset."""

    codes: Tensor
    """uint8 [out, groups]."""
    absmax: Tensor
    """float32 [ceil(out * groups / 256)]."""
    offset: float
    """Mean of the scales, representable in float32."""

    def decode(self) -> Tensor:
        """The scales, float32 [out, groups]."""
        flat = dynamic_map().to(self.codes.device)[self.codes.reshape(-1).int()]
        spread = self.absmax.repeat_interleave(NESTED_BLOCK)[: flat.numel()]
        return (flat * spread + self.offset).reshape(self.codes.shape)


def nest(scales: Tensor) -> NestedScale:
    """Store scales [out, groups] in 8 bits each."""
    flat = scales.float().reshape(-1)
    offset = flat.mean()
    centred = flat - offset
    padded = torch.nn.functional.pad(centred, (0, -flat.numel() % NESTED_BLOCK)).reshape(-1, NESTED_BLOCK)
    absmax = padded.abs().amax(dim=1)
    inverse = torch.where(absmax == 0, 0.0, 1.0 / absmax)
    table = dynamic_map().to(scales.device)
    codes = torch.bucketize(padded * inverse[:, None], (table[:-1] + table[1:]) / 2, out_int32=True)
    codes = codes.to(torch.uint8).reshape(-1)[: flat.numel()]
    return NestedScale(codes.reshape(scales.shape), absmax, offset.item())


@cache
def dynamic_map() -> Tensor:
    """The signed dynamic 8-bit code, 256 ascending values in (-1, 1], float32.

    Decade i below one (i = 0 is the coarsest exponent, 10^-6) holds 2^i positive values: the middles of 2^i equal
    parts of [0.1, 1], times the power of ten; and their negatives; and 0 and 1. Same order of operations as
    bitsandbytes, so the float32 values are equal to the bit.
    """
    values: list[float] = [0.0, 1.0]
    for decade in range(_EXPONENT_BITS):
        edges = torch.linspace(0.1, 1, 2**decade + 1, dtype=torch.float32)
        middles = (edges[:-1] + edges[1:]) / 2.0
        power = 10 ** (decade - _EXPONENT_BITS + 1)
        values += (power * middles).tolist()
        values += (-power * middles).tolist()
    return torch.tensor(sorted(values), dtype=torch.float32)
