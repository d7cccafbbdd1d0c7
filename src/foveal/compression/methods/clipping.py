"""Smaller ranges for groups of weights: a clipped outlier may cost less than a coarse grid for all the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from foveal.kernels.quantisation.affine import QuantisedWeight, quantise
from foveal.kernels.quantisation.scheme import WeightScheme

__all__ = ["CLIP_RATIOS", "clip", "search_clip"]

CLIP_RATIOS = tuple(1 - 0.05 * step for step in range(11))


def search_clip(
    weight: torch.Tensor, scheme: WeightScheme, hessian: torch.Tensor, ratios: Sequence[float] = CLIP_RATIOS
) -> QuantisedWeight:
    """Weight [out, in] rounded with the best range per output and group, by that group's own output error.

    Never worse than the full range (ratio 1) in the output error of the whole weight under `hessian` [in, in].
    Source: AWQ's clip search, arXiv 2306.00978.
    """
    full = quantise(weight, scheme)
    columns = weight.shape[1]
    group = scheme.group or columns
    parts = torch.stack([hessian[at : at + group, at : at + group] for at in range(0, columns, group)]).float()
    best = torch.ones(weight.shape[0], columns // group)
    least = _group_losses(full.dequantise() - weight, parts)
    for ratio in ratios:
        if ratio == 1:
            continue
        candidate = quantise(clip(weight, group, torch.full_like(best, ratio)), scheme)
        losses = _group_losses(candidate.dequantise() - weight, parts)
        better = losses < least
        best[better], least[better] = ratio, losses[better]
    clipped = quantise(clip(weight, group, best), scheme)
    return clipped if _loss(clipped, weight, hessian) < _loss(full, weight, hessian) else full


def clip(weight: torch.Tensor, group: int, ratio: torch.Tensor) -> torch.Tensor:
    """Weight [out, in] with each group cut to `ratio` [out, groups] of its range; the range always holds 0."""
    parts = weight.reshape(len(weight), -1, group)
    low = parts.amin(-1).clamp(max=0) * ratio
    high = parts.amax(-1).clamp(min=0) * ratio
    return torch.clamp(parts, low[..., None], high[..., None]).reshape(weight.shape)


def _group_losses(error: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
    """Error [out, in], Hessian blocks [groups, g, g] -> [out, groups]."""
    grouped = error.reshape(len(error), *parts.shape[:2]).transpose(0, 1)
    return ((grouped @ parts) * grouped).sum(-1).T


def _loss(quantised: QuantisedWeight, weight: torch.Tensor, hessian: torch.Tensor) -> float:
    error = quantised.dequantise() - weight
    return float(((error @ hessian.float()) * error).sum())
