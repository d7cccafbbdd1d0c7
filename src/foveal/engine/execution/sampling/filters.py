"""Top-k, top-p and min-p as one threshold per row.

A token is kept if its logit is at least the row's threshold. So equal logits are kept or dropped together, and no
sorting order, which may differ between kernels and batch shapes, can decide who stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from foveal.core.sampling_params import SamplingParams
from foveal.engine.execution.sampling.vocabulary_ops import (
    Floats,
    largest_values,
    maximum,
    peak_probability,
    select_rows,
)

__all__ = ["has_filters", "thresholds"]

NUCLEUS_WIDTHS = (1024, 8192)
"""Top-p looks at that many of the largest logits first; only rows whose nucleus is larger are sorted as a whole."""


def has_filters(params: SamplingParams) -> bool:
    return params.top_k > 0 or params.top_p < 1.0 or params.min_p > 0.0


def thresholds(scaled: torch.Tensor, params: Sequence[SamplingParams]) -> Floats:
    """The lowest logit to keep per row of `scaled` (logits / temperature), float32 [rows, vocab]; [rows], -inf for all.

    Order as in HF and vLLM: top-k, then top-p over what is left (renormalised), then min-p relative to the best token.
    """
    result = np.full(len(params), -np.inf)
    if not any(has_filters(p) for p in params):
        return result
    vocab = scaled.shape[1]
    top_k = np.array([p.top_k if 0 < p.top_k < vocab else vocab for p in params])
    top_p = np.array([p.top_p for p in params])

    only_k = ((top_k < vocab) & (top_p >= 1.0)).nonzero()[0]
    if len(only_k):
        ks = top_k[only_k]
        result[only_k] = largest_values(select_rows(scaled, only_k.tolist()), ks.max())[np.arange(len(ks)), ks - 1]

    pending = (top_p < 1.0).nonzero()[0]
    for width in (*(w for w in NUCLEUS_WIDTHS if w < vocab), vocab):
        if not len(pending):
            break
        subset = select_rows(scaled, pending.tolist())
        found, complete = _nucleus(subset, largest_values(subset, width), top_k[pending], top_p[pending])
        result[pending] = found
        pending = pending[~complete]

    with_min_p = [i for i, p in enumerate(params) if p.min_p > 0.0]
    if with_min_p:
        best = maximum(select_rows(scaled, with_min_p))
        floor = best + np.log([params[i].min_p for i in with_min_p])
        result[with_min_p] = np.maximum(result[with_min_p], floor)
    return result


def _nucleus(scaled: torch.Tensor, largest: Floats, top_k: np.ndarray, top_p: np.ndarray) -> tuple[Floats, np.ndarray]:
    """Thresholds [rows] from the `largest` values [rows, width], and whether each row's nucleus fits in that width."""
    rows, width = np.arange(len(largest)), largest.shape[1]
    limited = top_k < scaled.shape[1]
    kth = np.where(limited, largest[rows, np.minimum(top_k, width) - 1], -np.inf)[:, None]
    weights = np.exp(largest - largest[:, :1]) * (largest >= kth)
    cumulative = weights.cumsum(axis=1)
    total = cumulative[:, -1]
    if not limited.all():
        total = np.where(limited, total, 1.0 / peak_probability(scaled))
    inside = (cumulative - weights < (top_p * total)[:, None]) & (largest >= kth)
    found = largest[rows, inside.sum(axis=1) - 1]
    # Values that tie with the last one kept must be in view as well; and so must all that top-k keeps.
    smallest = largest[:, -1]
    complete = (width == scaled.shape[1]) | (smallest < np.where(limited, kth[:, 0], found)) | np.isneginf(smallest)
    return found, complete
