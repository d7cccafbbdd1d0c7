"""Attention within segments of one packed sequence: vision towers with images or windows of different sizes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import torch
import torch.nn.functional as F

from foveal.kernels.length_groups import LengthGroup, group_by_length

__all__ = ["varlen_attention"]


MIN_RUN_TOKENS = 256
"""Neighbouring segments of one length are computed where they lie if they are together at least this long: gathering
costs more than it saves. On a CPU that is most of a tower's work."""


@dataclass(frozen=True, slots=True)
class _Run:
    """n neighbouring segments of L tokens each, from position `start` on: no copy, no padding."""

    start: int
    count: int
    length: int


@dataclass(frozen=True, slots=True)
class _Segments:
    """n segments padded to L tokens each."""

    gather: torch.Tensor
    """[n * L] packed positions; padding points at position 0."""
    keep: torch.Tensor | None
    """[sum of real lengths] which of the n * L cells are real; None: all."""
    scatter: torch.Tensor
    """[sum of real lengths] where the real cells go."""
    bias: torch.Tensor | None
    """[n, 1, 1, L] 0 or -inf."""
    count: int
    length: int


def varlen_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: tuple[int, ...], *, scale: float
) -> torch.Tensor:
    """Full attention inside each segment: query, key, value [N, H, D], N = sum(lengths) -> [N, H, D].

    Long runs of equal segments are one call each, where they lie. The others are grouped by length, padded to a
    multiple of 8 and computed one call per group; a group that would be more than 30 % padding is split. A loop over
    segments, as in the reference implementations, costs one call per window: dozens per image and layer.
    """
    if len(lengths) == 1:
        return _attend(query[None], key[None], value[None], None, scale)[0]
    out = torch.empty_like(query)
    runs, groups = _plan(lengths, query.device, query.dtype)
    for run in runs:
        here = slice(run.start, run.start + run.count * run.length)
        shape = (run.count, run.length, *query.shape[1:])
        views = (tensor[here].unflatten(0, shape[:2]) for tensor in (query, key, value))
        out[here].view(shape).copy_(_attend(*views, None, scale))
    for group in groups:
        shape = (group.count, group.length, *query.shape[1:])
        padded = (tensor.index_select(0, group.gather).view(shape) for tensor in (query, key, value))
        cells = _attend(*padded, group.bias, scale).reshape(-1, *query.shape[1:])
        out.index_copy_(0, group.scatter, cells if group.keep is None else cells.index_select(0, group.keep))
    return out


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """[n, L, H, D] each -> [n, L, H, D]."""
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale).transpose(1, 2)


@lru_cache(maxsize=64)
def _plan(lengths: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> tuple[list[_Run], list[_Segments]]:
    """Depends on the lengths alone, so that all layers of a tower, and the next image of this size, share it."""
    runs: list[_Run] = []
    starts: list[int] = []
    scattered: list[int] = []
    position = 0
    for length, neighbours in groupby(lengths):
        count = len(list(neighbours))
        if count * length >= MIN_RUN_TOKENS:
            runs.append(_Run(position, count, length))
        else:
            starts += (position + index * length for index in range(count))
            scattered += [length] * count
        position += count * length
    groups = [
        _pad(
            [scattered[member] for member in group.members],
            [starts[member] for member in group.members],
            group,
            device,
            dtype,
        )
        for group in group_by_length(scattered)
    ]
    return runs, groups


def _pad(
    lengths: list[int], starts: list[int], group: LengthGroup, device: torch.device, dtype: torch.dtype
) -> _Segments:
    """Indices of the segments [start, start + length), padded to the group's length."""
    steps = torch.arange(group.padded_length)
    first = torch.tensor(starts)[:, None]
    real = steps < torch.tensor(lengths)[:, None]
    gather = torch.where(real, first + steps, 0).reshape(-1).to(device)
    scatter = (first + steps)[real].to(device)
    keep = bias = None
    if not real.all():
        keep = real.reshape(-1).nonzero()[:, 0].to(device)
        bias = torch.zeros(real.shape, dtype=dtype).masked_fill_(~real, float("-inf"))[:, None, None].to(device)
    return _Segments(gather, keep, scatter, bias, len(lengths), group.padded_length)
