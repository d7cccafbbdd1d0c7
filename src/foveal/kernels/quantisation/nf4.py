"""NF4: 4-bit codes that index quantiles of the normal distribution, one block maximum per group.

Source: QLoRA (arXiv 2305.14314) and bitsandbytes, whose codebook and rounding rule these are. The codebook is not made of
mid-quantiles: it is asymmetric, has an exact zero, and is normalised so that the ends are -1 and 1; a block is divided
by its largest magnitude.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["CODEBOOK", "ZERO_CODE", "cell_mse", "decode", "encode"]

CODEBOOK = torch.tensor(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ],
    dtype=torch.float32,
)
"""The 16 values of bitsandbytes: normal quantiles at 8 negative and 9 positive evenly spaced probabilities up to
0.9677083, over the largest of them."""

ZERO_CODE = 7

_MIDPOINTS = (CODEBOOK[:-1] + CODEBOOK[1:]) / 2


def encode(values: Tensor, absmax: Tensor) -> Tensor:
    """Indices [0, 15] (uint8) of the nearest codebook entries of values / absmax; a block of zeros gets the zero code.

    `absmax` may be smaller than the block's largest value, or after double quantisation even not positive: the nearest
    representable value is still chosen.
    """
    inverse = torch.where(absmax == 0, 0.0, 1.0 / absmax)
    return torch.bucketize((values * inverse).float(), _MIDPOINTS.to(values.device), out_int32=True).to(torch.uint8)


def decode(codes: Tensor, absmax: Tensor) -> Tensor:
    return CODEBOOK.to(absmax)[codes.int()] * absmax


def cell_mse(codes: Tensor) -> Tensor:
    """Expected squared error, in units of absmax squared, of values spread evenly over the cell of each code.

    Cells reach half-way to either neighbour, not equally far; the outer two end at -1 and 1.
    """
    below = torch.cat([CODEBOOK[:1], _MIDPOINTS]) - CODEBOOK
    above = torch.cat([_MIDPOINTS, CODEBOOK[-1:]]) - CODEBOOK
    return ((above**3 - below**3) / (3 * (above - below))).to(codes.device)[codes.int()]
