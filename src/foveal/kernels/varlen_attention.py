"""Attention within segments of one packed sequence: vision towers with images or windows of different sizes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F

from foveal.kernels.length_groups import group_by_length

__all__ = ["varlen_attention"]


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

    Segments are grouped by length, padded to a multiple of 8 and computed one call per group; a group that would be
    more than 30 % padding is split. A loop over segments, as in the reference implementations, costs one call per
    window: dozens per image and layer.
    """
    if len(lengths) == 1:
        return _attend(query[None], key[None], value[None], None, scale)[0]
    out = torch.empty_like(query)
    for group in _plan(lengths, query.device, query.dtype):
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
def _plan(lengths: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> list[_Segments]:
    """Depends on the lengths alone, so that all layers of a tower, and the next image of this size, share it."""
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    plans = []
    for group in group_by_length(lengths):
        size = group.padded_length
        steps = torch.arange(size)
        counts = torch.tensor([lengths[member] for member in group.members])[:, None]
        first = torch.tensor([starts[member] for member in group.members])[:, None]
        real = steps < counts
        positions = (first + steps)[real]
        full = bool(real.all())
        gather = torch.where(real, first + steps, 0).reshape(-1)
        keep = None if full else real.reshape(-1).nonzero()[:, 0].to(device)
        bias = None
        if not full:
            bias = torch.zeros(real.shape, dtype=dtype).masked_fill_(~real, float("-inf"))[:, None, None].to(device)
        plans.append(_Segments(gather.to(device), keep, positions.to(device), bias, len(group.members), size))
    return plans
