"""The usual rows, sampled from the few tokens that matter.

Sampling needs little of a vocabulary: the tokens near the best one, and the weight of all others in one sum. One pass
over each row finds both (`kernels/logits_scan.py`); top-k, top-p and min-p are then settled on a few hundred numbers.
What comes out is what `filters` and `draw` find on whole rows, which walk a matrix of rows x vocabulary a dozen times.

Every sum stays within its row, so a row's result does not depend on its neighbours, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from foveal.core.sampling_params import SamplingParams
from foveal.engine.execution.sampling.vocabulary_ops import Floats, Ints
from foveal.kernels.logits_scan import scan_logits

__all__ = ["Candidates", "find_candidates"]

Flags = npt.NDArray[np.bool_]

_SLACK = 1.001
"""Dividing by the temperature rounds: a little more than the window is collected, and compared exactly afterwards."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What may be drawn in each of R rows, one row after the other: M tokens in all, ascending by id within a row."""

    settled: Flags
    """[R] False where the window does not settle a row: a flat distribution, NaN, a wide nucleus. It has no tokens then."""
    counts: Ints
    """[R] tokens of each row, M in all."""
    tokens: Ints
    """[M]"""
    logits: Floats
    """[M] divided by the temperature."""
    threshold: Floats
    """[R] a settled row's tokens are those from here on."""
    log_tail: Floats
    """[R] log of the summed exp(logit) of all other tokens that may be drawn; -inf if there are none."""


def find_candidates(
    logits: npt.NDArray[np.float32], params: Sequence[SamplingParams], *, window: float, most: int, threads: int
) -> Candidates:
    """`logits` [R, vocab]. Candidates lie within `window` nats of the best; rows with more than `most` are not settled."""
    num_rows, vocab = logits.shape
    temperature = np.array([p.temperature for p in params], dtype=np.float32)
    top_k = np.array([p.top_k if 0 < p.top_k < vocab else 0 for p in params])
    top_p = np.array([p.top_p for p in params])
    min_p = np.array([p.min_p for p in params])
    limited = top_k > 0
    filtered = limited | (top_p < 1.0) | (min_p > 0.0)
    weigh = ~filtered | ((top_p < 1.0) & ~limited)
    scan = scan_logits(
        logits, np.float32(1.0) / temperature, np.float32(_SLACK * window) * temperature, weigh, most, threads
    )
    best = (scan.largest / temperature).astype(np.float64)
    edge = (best - window).astype(np.float32)
    settled = (scan.counts > 0) & (scan.counts <= most) & np.isfinite(best)

    counts = np.where(settled, scan.counts, 0)
    row = np.arange(num_rows).repeat(counts)
    tokens = _ragged(scan.ids, counts)
    scaled = logits[row, tokens] / temperature[row]
    row, tokens, scaled = _only(scaled >= edge[row], row, tokens, scaled)
    values = scaled.astype(np.float64)

    threshold = edge.astype(np.float64)
    log_tail = np.full(num_rows, -np.inf)
    if filtered.any():
        floor, complete = _floor(
            _padded(values, row, filtered),
            best[filtered],
            scan.totals[filtered],
            top_k[filtered],
            top_p[filtered],
            min_p[filtered],
        )
        threshold[filtered] = floor
        settled[filtered] &= complete & (floor >= edge[filtered])
        row, tokens, scaled, values = _only(
            settled[row] & (scaled >= threshold.astype(np.float32)[row]), row, tokens, scaled, values
        )
    counts = np.bincount(row, minlength=num_rows)
    open_rows = settled & ~filtered
    if open_rows.any():
        inside = open_rows[row]
        weights = np.exp(values[inside] - best[row[inside]])
        some = counts[open_rows]
        head = np.add.reduceat(weights, np.cumsum(some) - some)
        with np.errstate(divide="ignore"):
            log_tail[open_rows] = np.log(np.maximum(scan.totals[open_rows] - head, 0.0)) + best[open_rows]
    return Candidates(settled, counts, tokens, values, threshold, log_tail)


def _ragged(table: npt.NDArray[np.int32], counts: Ints) -> Ints:
    """The first counts[r] of each row [r], joined."""
    parts = [ids[:count] for ids, count in zip(table, counts.tolist(), strict=True)]
    return np.concatenate(parts).astype(np.int64)


def _only(keep: Flags, *arrays: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
    return arrays if keep.all() else tuple(array[keep] for array in arrays)


def _padded(values: Floats, row: Ints, chosen: Flags) -> Floats:
    """The values of `chosen` rows, a row each, with -inf behind."""
    counts = np.bincount(row, minlength=len(chosen))[chosen]
    table = np.full((len(counts), max(1, int(counts.max()))), -np.inf)
    table[np.arange(table.shape[1]) < counts[:, None]] = values[chosen[row]]
    return table


def _floor(
    values: Floats, best: Floats, totals: npt.NDArray[Any], top_k: Ints, top_p: Floats, min_p: Floats
) -> tuple[Floats, Flags]:
    """The lowest logit [R] that top-k, then top-p over what is left, then min-p keep; and whether the candidates tell."""
    rows, width = np.arange(len(values)), values.shape[1]
    totals = totals.astype(np.float64)
    largest = -np.sort(-values, axis=1)
    limited = top_k > 0
    complete = top_k <= np.isfinite(largest).sum(axis=1)
    floor = np.where(limited, largest[rows, np.minimum(np.maximum(top_k, 1), width) - 1], -np.inf)
    nucleus = top_p < 1.0
    if nucleus.any():
        weights = np.exp(largest - best[:, None]) * (largest >= floor[:, None])
        cumulative = weights.cumsum(axis=1)
        total = np.where(limited, cumulative[:, -1], totals)
        kept = (cumulative - weights < (top_p * total)[:, None]) & (largest >= floor[:, None]) & np.isfinite(largest)
        count = kept.sum(axis=1)
        # Else the nucleus goes on below what is in view.
        complete &= ~nucleus | (cumulative[:, -1] >= top_p * total)
        floor = np.where(nucleus, largest[rows, np.maximum(count, 1) - 1], floor)
    with np.errstate(divide="ignore"):
        floor = np.where(min_p > 0.0, np.maximum(floor, best + np.log(min_p)), floor)
    return floor, complete
