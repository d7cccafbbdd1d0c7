"""Top-k, top-p and min-p as one threshold per row.

A token is kept if its logit is at least the row's threshold. So equal logits are kept or dropped together, and no
sorting order, which may differ between kernels and batch shapes, can decide who stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from foveal.core.sampling_params import SamplingParams
from foveal.engine.execution.sampling.ordering import largest_values

__all__ = ["has_filters", "thresholds"]

NUCLEUS_WIDTH = 1024
"""Top-p looks at that many of the largest logits first; only rows whose nucleus is larger are sorted as a whole."""


def has_filters(params: SamplingParams) -> bool:
    return params.top_k > 0 or params.top_p < 1.0 or params.min_p > 0.0


def thresholds(scaled: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """The lowest logit to keep per row of `scaled` (logits / temperature), float32 [rows, vocab]; [rows].

    Order as in HF and vLLM: top-k, then top-p over what is left (renormalised), then min-p relative to the best token.
    """
    vocab = scaled.shape[1]
    top_k = [p.top_k if 0 < p.top_k < vocab else vocab for p in params]
    top_p = [p.top_p for p in params]
    result = torch.full((len(params),), float("-inf"), dtype=scaled.dtype, device=scaled.device)

    only_k = [i for i, p in enumerate(params) if top_k[i] < vocab and p.top_p >= 1.0]
    if only_k:
        ks = [top_k[i] for i in only_k]
        largest = largest_values(scaled[only_k], max(ks))
        result[only_k] = largest[range(len(ks)), [k - 1 for k in ks]]

    pending = [i for i, p in enumerate(params) if p.top_p < 1.0]
    for width in (min(NUCLEUS_WIDTH, vocab), vocab):
        if not pending:
            break
        subset = scaled[pending]
        found, complete = _nucleus(
            subset, largest_values(subset, width), [top_k[i] for i in pending], [top_p[i] for i in pending]
        )
        result[pending] = found
        pending = [i for i, done in zip(pending, complete, strict=True) if not done]

    with_min_p = [i for i, p in enumerate(params) if p.min_p > 0.0]
    if with_min_p:
        min_p = torch.tensor([params[i].min_p for i in with_min_p], dtype=scaled.dtype, device=scaled.device)
        floor = scaled[with_min_p].amax(dim=1) + min_p.log()
        result[with_min_p] = torch.maximum(result[with_min_p], floor)
    return result


def _nucleus(
    scaled: torch.Tensor, largest: torch.Tensor, top_k: Sequence[int], top_p: Sequence[float]
) -> tuple[torch.Tensor, list[bool]]:
    """Thresholds [rows] from the `largest` values [rows, width], and which rows' nucleus fits in that width."""
    rows, width = largest.shape
    vocab = scaled.shape[1]
    best = largest[:, :1]
    kth = largest[range(rows), [min(k, width) - 1 for k in top_k]].unsqueeze(1)
    unlimited = torch.tensor([k >= vocab for k in top_k], device=scaled.device).unsqueeze(1)
    kth = torch.where(unlimited, float("-inf"), kth)
    weights = (largest - best).double().exp() * (largest >= kth)
    cumulative = weights.cumsum(dim=1)
    # softmax reduces each row on its own, unlike sum(), which splits a single row between threads.
    everything = 1.0 / scaled.softmax(dim=1).amax(dim=1, keepdim=True).double()
    total = torch.where(unlimited, everything, cumulative[:, -1:])
    budget = torch.tensor(top_p, dtype=torch.float64, device=scaled.device).unsqueeze(1) * total
    inside = (cumulative - weights < budget) & (largest >= kth)
    last = inside.sum(dim=1) - 1
    found = largest[torch.arange(rows, device=scaled.device), last]
    # Values that tie with the last one kept must be in view as well; and so must all that top-k keeps.
    smallest = largest[:, -1]
    bounded = (smallest < torch.where(unlimited[:, 0], found, kth[:, 0])) | (smallest == float("-inf"))
    return found, [width == vocab or bool(b) for b in bounded.tolist()]
