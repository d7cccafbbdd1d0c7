"""The uniform grid: a range becomes a scale and a zero point, values become integer codes and come back.

code = clamp(round(value / scale) + zero_point), value = (code - zero_point) * scale; ties round to even. Every function
works elementwise with broadcasting, in the precision of its input.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["decode", "encode", "scale_for_range"]

_SMALLEST_SCALE = 2.0**-24
"""Smallest positive float16; also what an all-zero range gets before its scale is set to one."""


def scale_for_range(
    low: Tensor, high: Tensor, codes: tuple[int, int], *, symmetric: bool
) -> tuple[Tensor, Tensor | None]:
    """Scale and zero point (int32, None when symmetric) of a grid with these lowest and highest codes over [low, high].

    Asymmetric: (high - low) / (2^b - 1) over a range widened to hold zero, which is represented exactly.
    Symmetric with as many codes below zero as above: max(|low|, |high|) / highest code.
    Symmetric with one more code below zero (4 bits: [-8, 7]): the smallest step that leaves no value of the range
    further than half a step from a code. The outermost cells reach half a step beyond their codes, so that is
    max(high / 7.5, -low / 8.5); on Gaussian groups its error is a tenth under that of max|w| / 7.5 and a fifth under
    that of max|w| / 7. A range of zeros gets scale one.
    """
    lowest, highest = codes
    if symmetric:
        if -lowest == highest:
            scale = torch.maximum(high, -low) / highest
        else:
            scale = torch.maximum(high / (highest + 0.5), -low / (0.5 - lowest))
        return torch.where(scale > 0, scale.clamp_min(_SMALLEST_SCALE), torch.ones_like(scale)), None
    low, high = low.clamp_max(0), high.clamp_min(0)
    scale = (high - low) / (highest - lowest)
    scale = torch.where(scale > 0, scale.clamp_min(_SMALLEST_SCALE), torch.ones_like(scale))
    return scale, zero_point_for(low, scale, codes)


def zero_point_for(low: Tensor, scale: Tensor, codes: tuple[int, int]) -> Tensor:
    """The code of zero (int32) on a grid whose lowest code stands for `low` (not above zero)."""
    lowest, highest = codes
    return (lowest + torch.round(-low / scale)).clamp_(lowest, highest).to(torch.int32)


def encode(values: Tensor, scale: Tensor, zero_point: Tensor | None, codes: tuple[int, int]) -> Tensor:
    """Codes of `values`, as integers in the dtype of `values` (floating). Values beyond the range get the end codes."""
    coded = torch.round_(values / scale)
    if zero_point is not None:
        coded += zero_point
    return coded.clamp_(*codes)


def decode(codes: Tensor, scale: Tensor, zero_point: Tensor | None) -> Tensor:
    """Values of `codes` in the dtype of `scale`."""
    values = codes.to(scale.dtype)
    if zero_point is not None:
        values = values - zero_point
    return values * scale
