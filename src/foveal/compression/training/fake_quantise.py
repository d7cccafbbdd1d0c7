"""Rounding that lets gradients through: straight-through estimation with learnt scales.

Source: Learned Step Size Quantization (Esser et al., 2020). With v = w / s + z, clamped to the codes' range [lo, hi]:

    forward   (round(clamp(v)) - z) s
    d / dw    1 inside the range, 0 outside
    d / ds    round(v) - v inside, lo - z or hi - z outside; scaled by 1 / sqrt(weights per scale * hi)
"""

from __future__ import annotations

import torch

from foveal.kernels.quantisation.scheme import WeightScheme

__all__ = ["SMALLEST_SCALE", "codes_of", "fake_quantise", "spread", "stored_scale"]

SMALLEST_SCALE = 2.0**-14
"""The smallest normal float16: scales are stored as float16."""


def fake_quantise(
    weight: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None, scheme: WeightScheme
) -> torch.Tensor:
    """Weight [out, in] as its codes would give it back; differentiable by `weight` and `scale` [out, groups] or [1, 1]."""
    low, high = scheme.code_range
    weights_per_scale = weight.numel() / scale.numel()
    step = spread(_scaled_gradient(stored_scale(scale), (weights_per_scale * max(high, 1)) ** -0.5), weight)
    zero = 0.0 if zero_point is None else spread(zero_point.to(weight.dtype), weight)
    clamped = (weight / step + zero).clamp(low, high)
    rounded = clamped + (clamped.round() - clamped).detach()
    return (rounded - zero) * step


@torch.no_grad()
def codes_of(
    weight: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None, scheme: WeightScheme
) -> torch.Tensor:
    """The integer codes of `fake_quantise`'s forward: int8, or uint8 for asymmetric schemes, [out, in]."""
    low, high = scheme.code_range
    zero = 0.0 if zero_point is None else spread(zero_point.to(weight.dtype), weight)
    codes = (weight / spread(stored_scale(scale), weight) + zero).clamp(low, high).round()
    return codes.to(torch.int8 if scheme.symmetric else torch.uint8)


def stored_scale(scale: torch.Tensor) -> torch.Tensor:
    """The scale as it will be stored, float16 and positive; the gradient passes as if it were not rounded."""
    positive = scale.abs().clamp_min(SMALLEST_SCALE)
    return positive + (positive.half().to(positive.dtype) - positive).detach()


def spread(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """[out or 1, groups] -> one value per weight, [out, in] by broadcasting or repeating along the groups."""
    groups = values.shape[1]
    return values if groups == 1 else values.repeat_interleave(weight.shape[1] // groups, dim=1)


def _scaled_gradient(values: torch.Tensor, factor: float) -> torch.Tensor:
    return values * factor + (values - values * factor).detach()
