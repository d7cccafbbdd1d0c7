"""Draw tokens with keyed Gumbel noise.

The Gumbel-max trick: argmax(logit + Gumbel noise of that token) follows softmax(logits). We prefer it to one uniform
through the inverse CDF because logits that differ by rounding (another batch shape, another GEMM kernel) move *every*
boundary of a CDF, but flip an argmax only if its two best are as close.

Noise for a whole vocabulary would cost more than the rest of the sampler, so rows with many candidates are drawn in two
levels, which is exact as well: the head (tokens within HEAD_WINDOW of the best) token by token, all the rest as one lump
of their summed weight; only if the lump wins, which is rare, is a token of the tail chosen, by its CDF.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from foveal.core.sampling_params import SamplingParams
from foveal.engine.execution.sampling.random_stream import DrawKey, TokenNoise
from foveal.engine.execution.sampling.vocabulary_ops import (
    Floats,
    Ints,
    kept,
    largest_values,
    maximum,
    peak_probability,
    select_rows,
    tail_weights,
)
from foveal.kernels.native.extension import native_kernels
from foveal.kernels.row_draw import RowFilters, draw_rows

__all__ = ["GumbelDraw"]

HEAD_WINDOW = 6.0
"""Nats below the best logit: tokens outside are at most 1/403 as likely as the best."""

MAX_HEAD = 4096
"""A head larger than this (a nearly flat distribution) ..."""

NARROW_HEAD = 1024
"""... is cut to that many tokens. Vocabularies up to MAX_HEAD may be all head."""


class GumbelDraw:
    """Holds the noise table for a vocabulary; ids beyond it are the lump of the tail and the choice within."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._lump_id = vocab_size
        self._inside_lump_id = vocab_size + 1
        self._noise = TokenNoise(vocab_size + 2)

    def draw_rows(
        self, logits: torch.Tensor, params: Sequence[SamplingParams], keys: Sequence[Sequence[DrawKey]]
    ) -> list[list[int] | None]:
        """One token per key and row from `logits` [rows, vocab] on a CPU, not yet divided by the temperature: what `draw`
        would give, in one pass over memory. None for rows that `draw` has to look at as a whole, which without native
        kernels are all.
        """
        if native_kernels() is None:
            return [None] * len(keys)
        counts = np.array([len(row_keys) for row_keys in keys], dtype=np.int32)
        flat_keys = [key for row_keys in keys for key in row_keys]
        found = draw_rows(
            logits.numpy(),
            _row_filters(params, self._vocab_size),
            np.array(flat_keys, dtype=np.uint32),
            counts,
            self._noise.hashed_ids,
            window=HEAD_WINDOW,
            most=MAX_HEAD,
            threads=torch.get_num_threads(),
        )
        drawn = iter(found.tokens.tolist())
        by_row = [list(islice(drawn, count)) for count in counts.tolist()]
        return [row if settled else None for row, settled in zip(by_row, found.settled.tolist(), strict=True)]

    def draw(self, scaled: torch.Tensor, floor: Floats, keys: Sequence[Sequence[DrawKey]]) -> list[list[int]]:
        """One token per key and row from softmax of `scaled` [rows, vocab] over the tokens >= `floor` [rows].

        `floor` is -inf where all tokens count.
        """
        best = maximum(scaled)
        split = np.isneginf(floor)  # rows drawn in two levels
        threshold = np.where(split, best - HEAD_WINDOW, floor)
        rows, tokens, logits = kept(scaled, threshold)
        counts = np.bincount(rows, minlength=len(keys))
        if counts.max() > MAX_HEAD and self._vocab_size > MAX_HEAD:
            wide = counts > MAX_HEAD
            limits = torch.from_numpy(floor.astype(np.float32)).to(scaled.device).unsqueeze(1)
            scaled = torch.where(scaled >= limits, scaled, float("-inf"))  # so that the tail ends at the floor
            for i in wide.nonzero()[0]:
                threshold[i] = largest_values(scaled[i : i + 1], NARROW_HEAD)[0, -1]
            split |= wide
            rows, tokens, logits = kept(scaled, threshold)
            counts = np.bincount(rows, minlength=len(keys))
        starts = np.cumsum(counts) - counts
        log_tail = self._log_tail_weight(scaled, best, logits, starts, counts, split) if split.any() else None

        flat_keys = [key for row_keys in keys for key in row_keys]
        owners = np.repeat(np.arange(len(keys)), [len(row_keys) for row_keys in keys])
        tokens, logits, counts = _repeated(tokens, logits, counts, owners)
        ids, scores = _winners(logits + self._noise.gumbel(flat_keys, counts, tokens), tokens, counts)
        if log_tail is not None:
            ones = np.ones(len(owners), dtype=np.int64)
            lumps = log_tail[owners] + self._noise.gumbel(flat_keys, ones, ones * self._lump_id)
            for draw in (lumps > scores).nonzero()[0]:
                row = owners[draw]
                ids[draw] = self._from_tail(scaled[row], float(threshold[row]), flat_keys[draw], fallback=ids[draw])
        cursor = iter(ids)
        return [[next(cursor) for _ in row_keys] for row_keys in keys]

    def _log_tail_weight(
        self,
        scaled: torch.Tensor,
        best: Floats,
        logits: Floats,
        starts: Ints,
        counts: Ints,
        split: npt.NDArray[np.bool_],
    ) -> Floats:
        """log of the summed exp(logit) outside the head per row; -inf where that is nothing or the row is not split."""
        relative = np.exp(logits - best.repeat(counts))
        head = np.array([relative[s : s + c].sum() for s, c in zip(starts, counts, strict=True)])
        tail = np.zeros(len(best))
        indices = split.nonzero()[0]
        everything = 1.0 / peak_probability(select_rows(scaled, indices.tolist()))
        tail[indices] = np.maximum(everything - head[indices], 0.0)
        with np.errstate(divide="ignore"):
            log_weight: Floats = np.log(tail) + best
        return log_weight

    def _from_tail(self, row: torch.Tensor, threshold: float, key: DrawKey, fallback: int) -> int:
        """A token of row [vocab] below the threshold; `fallback` if rounding made up a tail that is not there."""
        cumulative = tail_weights(row, threshold)
        total = float(cumulative[-1])
        if not total > 0.0:
            return fallback
        u = float(self._noise.uniform([key], np.array([1]), np.array([self._inside_lump_id]))[0])
        return min(int(cumulative.searchsorted(u * total, side="right")), self._vocab_size - 1)


def _row_filters(params: Sequence[SamplingParams], vocab: int) -> RowFilters:
    return RowFilters(
        np.array([p.temperature for p in params], dtype=np.float32),
        np.array([p.top_k if 0 < p.top_k < vocab else 0 for p in params], dtype=np.int32),
        np.array([p.top_p for p in params]),
        np.array([p.min_p for p in params]),
    )


def _repeated(tokens: Ints, logits: Floats, counts: Ints, owners: Ints) -> tuple[Ints, Floats, Ints]:
    """Groups of `counts` consecutive pairs, once for each draw of their row: `owners` names the row of each draw."""
    if len(owners) == len(counts) and (owners == np.arange(len(counts))).all():
        return tokens, logits, counts
    ends = np.cumsum(counts)
    pairs = np.concatenate([np.arange(ends[row] - counts[row], ends[row]) for row in owners])
    return tokens[pairs], logits[pairs], counts[owners]


def _winners(scores: Floats, tokens: Ints, counts: Ints) -> tuple[list[int], Floats]:
    """Token and score of the best pair in each group of `counts` consecutive pairs.

    A group is empty only if its logits are NaN. It still gets a valid id: one broken request must not end the others.
    """
    ids: list[int] = []
    best = np.full(len(counts), np.inf)
    start = 0
    for group, count in enumerate(counts):
        if count:
            winner = start + int(scores[start : start + count].argmax())
            ids.append(int(tokens[winner]))
            best[group] = scores[winner]
        else:
            ids.append(0)
        start += count
    return ids, best
