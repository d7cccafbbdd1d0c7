"""AWQ: make channels with large inputs larger before rounding, and divide the input instead.

The weight is multiplied by s and the input divided by s, so that the product stays and the rounding error of important
channels shrinks. Source: arXiv 2306.00978 (texts that print the scale the other way round have it inverted).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from foveal.kernels.quantisation.affine import quantise
from foveal.kernels.quantisation.scheme import WeightScheme

__all__ = ["GRID_STEPS", "ScaleChoice", "search_scale"]

GRID_STEPS = 20
_SMALLEST = 1e-4


@dataclass(frozen=True)
class ScaleChoice:
    """The best scale found, on the data that it was searched on."""

    scale: torch.Tensor
    """[channels] of the source (the norm or linear that the division is folded into)."""
    gamma: float
    loss: float
    plain_loss: float
    """With gamma = 0, that is without scaling."""


def search_scale(
    weights: Sequence[torch.Tensor],
    schemes: Sequence[WeightScheme],
    hessian: torch.Tensor,
    mean_abs: torch.Tensor,
    *,
    channels: torch.Tensor | None = None,
    steps: int = GRID_STEPS,
) -> ScaleChoice:
    """The scale for linears [out_i, in] that share their input, by their summed output error under `hessian` [in, in].

    Candidates are mean|x|^gamma and, as in the authors' code, mean|x|^gamma / mean|w|^(1 - gamma), for gamma = 0, 1/steps
    ... 1. Gamma = 0 without the second factor is the identity, always among them: the result is never worse. `channels`
    [in] says which channel of the source each input column comes from, where one feeds several.
    """
    columns = torch.arange(len(mean_abs)) if channels is None else channels
    activity = _per_source(mean_abs.float(), columns)
    magnitude = _per_source(
        torch.cat([_relative(w, s) for w, s in zip(weights, schemes, strict=True)]).mean(0), columns
    )
    hessian = hessian.float()
    identity = torch.ones_like(activity)
    plain = _loss(weights, schemes, hessian, identity[columns])
    best = ScaleChoice(identity, 0.0, plain, plain)
    for step in range(steps + 1):
        gamma = step / steps
        raw = activity.clamp(min=_SMALLEST) ** gamma
        for scale in (raw, raw / (magnitude ** (1 - gamma) + _SMALLEST)):
            scale = (scale / (scale.max() * scale.min()).sqrt()).clamp(min=_SMALLEST)
            loss = _loss(weights, schemes, hessian, scale[columns])
            if loss < best.loss:
                best = ScaleChoice(scale, gamma, loss, plain)
    return best


def _loss(
    weights: Sequence[torch.Tensor], schemes: Sequence[WeightScheme], hessian: torch.Tensor, scale: torch.Tensor
) -> float:
    total = 0.0
    for weight, scheme in zip(weights, schemes, strict=True):
        error = quantise(weight * scale, scheme).dequantise() / scale - weight
        total += float(((error @ hessian) * error).sum())
    return total


def _relative(weight: torch.Tensor, scheme: WeightScheme) -> torch.Tensor:
    """Magnitudes [out, in] relative to the largest of their group."""
    parts = weight.reshape(len(weight), -1, scheme.group or weight.shape[1]).abs()
    return (parts / parts.amax(-1, keepdim=True).clamp(min=1e-12)).reshape(weight.shape)


def _per_source(values: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Means over the input columns [in] of each source channel."""
    size = int(columns.max()) + 1
    totals = torch.zeros(size).index_add_(0, columns, values)
    return totals / torch.bincount(columns, minlength=size).clamp(min=1)
