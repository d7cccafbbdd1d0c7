"""SmoothQuant: move outliers from the inputs into the weights, so that both can be rounded to 8 bits.

Source: arXiv 2211.10438: s = max|x|^alpha / max|w|^(1 - alpha) per channel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

__all__ = ["ALPHAS", "search_alpha", "smooth_scale"]

ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
_SMALLEST = 1e-5


def smooth_scale(
    input_max: torch.Tensor, weights: Sequence[torch.Tensor], alpha: float, *, channels: torch.Tensor | None = None
) -> torch.Tensor:
    """Largest inputs [in] and weights [out_i, in] -> scale [source channels]. Silent channels keep 1."""
    columns = torch.arange(len(input_max)) if channels is None else channels
    size = int(columns.max()) + 1
    weight_max = torch.stack([weight.abs().amax(0) for weight in weights]).amax(0)
    inputs, largest = (
        torch.zeros(size).scatter_reduce(0, columns, values.float(), "amax") for values in (input_max, weight_max)
    )
    scale = inputs.clamp(min=_SMALLEST) ** alpha / largest.clamp(min=_SMALLEST) ** (1 - alpha)
    return torch.where((inputs == 0) | (largest == 0), torch.ones(()), scale.clamp(min=_SMALLEST))


def search_alpha(
    scale_of: Callable[[float], torch.Tensor],
    loss_of: Callable[[torch.Tensor | None], float],
    alphas: Sequence[float] = ALPHAS,
) -> tuple[float | None, torch.Tensor | None]:
    """The alpha with the least loss and its scale; (None, None) if leaving the inputs alone is as good."""
    best: tuple[float | None, torch.Tensor | None] = (None, None)
    least = loss_of(None)
    for alpha in alphas:
        scale = scale_of(alpha)
        loss = loss_of(scale)
        if loss < least:
            best, least = (alpha, scale), loss
    return best
