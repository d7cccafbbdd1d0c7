"""Tokens drawn row by row with temperature, top-k, top-p and min-p, natively."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foveal.kernels.native.extension import require_native

__all__ = ["RowDraw", "RowFilters", "draw_rows"]


@dataclass(frozen=True, slots=True)
class RowFilters:
    """Of R rows, as SamplingParams names them."""

    temperature: npt.NDArray[np.float32]
    top_k: npt.NDArray[np.int32]
    """0 where all count."""
    top_p: npt.NDArray[np.float64]
    min_p: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RowDraw:
    tokens: npt.NDArray[np.int32]
    """[D]"""
    settled: npt.NDArray[np.bool_]
    """[R] False where the window does not tell what may be drawn: a flat distribution, a wide nucleus, NaN where a sum of
    all weights is needed. Such a row has no tokens."""


def draw_rows(
    logits: npt.NDArray[np.float32],
    filters: RowFilters,
    keys: npt.NDArray[np.uint32],
    counts: npt.NDArray[np.int32],
    hashed_ids: npt.NDArray[np.uint32],
    *,
    window: float,
    most: int,
    threads: int,
) -> RowDraw:
    """counts [R] tokens from each row of `logits` [R, vocab], the largest sum of logit and keyed Gumbel noise each.

    `keys` [D, 2], D = sum(counts), and `hashed_ids` [vocab + 2] make the noise (`sampling/random_stream.py`): of each
    token within `window` nats of the best, of all others as one lump, and of the choice within that. At most `most` tokens
    are looked at one by one. Each row's result depends on that row alone, to the last bit. Raises ConfigurationError
    without native kernels.
    """
    starts = np.zeros(len(counts) + 1, dtype=np.int32)
    np.cumsum(counts, out=starts[1:])
    draw = RowDraw(np.zeros(len(keys), dtype=np.int32), np.zeros(len(counts), dtype=np.bool_))
    require_native().draw_rows(
        logits,
        filters.temperature,
        filters.top_k,
        filters.top_p,
        filters.min_p,
        starts,
        keys,
        hashed_ids,
        window,
        most,
        draw.tokens,
        draw.settled,
        max(1, threads),
    )
    return draw
