"""Attention over the paged KV pool for a mixed prefill and decode batch: the torch reference."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from foveal.kernels.attention_batch import AttentionBatch
from foveal.kernels.attention_plan import DecodeGroup, PrefillRow, plan_of

__all__ = ["paged_attention"]


def paged_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    key_pool: torch.Tensor,
    value_pool: torch.Tensor,
    batch: AttentionBatch,
    *,
    block_size: int,
    scale: float,
    sliding_window: int | None = None,
) -> torch.Tensor:
    """Store the new K and V, then attend: query [T, Hq, D], key and value [T, Hkv, D] -> [T, Hq, D].

    `key_pool` and `value_pool` are one layer of the pool, [slots, Hkv, D]; they are written at `batch.slots`. Query
    head h reads KV head h // (Hq // Hkv). A query at position p sees positions (p - sliding_window, p], and within its
    image span, where the batch has spans, later ones too.

    Requests with one query token are computed together, padded to similar lengths: torch's own attention is slow for
    a single query row with grouped heads. The others go through `scaled_dot_product_attention` one by one.
    """
    key_pool.index_copy_(0, batch.slots, key)
    value_pool.index_copy_(0, batch.slots, value)
    plan = plan_of(batch, block_size, key.shape[1], query.dtype).for_window(sliding_window)
    if not plan.prefill and len(plan.decode) == 1 and plan.decode[0].tokens is None:
        return _decode(plan.decode[0], query, key_pool, value_pool, scale)
    out = torch.empty_like(query)
    for group in plan.decode:
        if group.tokens is None:
            out.copy_(_decode(group, query, key_pool, value_pool, scale))
        else:
            rows = query.index_select(0, group.tokens)
            out.index_copy_(0, group.tokens, _decode(group, rows, key_pool, value_pool, scale))
    for row in plan.prefill:
        out[row.start : row.end] = _prefill(row, query, key, value, key_pool, value_pool, scale)
    return out


def _decode(
    group: DecodeGroup, query: torch.Tensor, key_pool: torch.Tensor, value_pool: torch.Tensor, scale: float
) -> torch.Tensor:
    """[n, Hq, D] -> [n, Hq, D]: two batched products over (request, KV head), grouped heads as rows."""
    num_kv_heads, head_dim = key_pool.shape[1:]
    shape = (group.count * num_kv_heads, group.length, head_dim)
    keys = key_pool.view(-1, head_dim).index_select(0, group.kv_rows).view(shape)
    grouped = query.reshape(shape[0], -1, head_dim)
    if group.bias is None:
        scores = torch.bmm(grouped, keys.transpose(1, 2)).mul_(scale)
    else:
        scores = torch.baddbmm(group.bias, grouped, keys.transpose(1, 2), alpha=scale)
    # Softmax in float32, as torch's fused attention does; the cast is free when the model is float32.
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    values = value_pool.view(-1, head_dim).index_select(0, group.kv_rows).view(shape)
    return torch.bmm(weights, values).view(query.shape)


def _prefill(
    row: PrefillRow,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    key_pool: torch.Tensor,
    value_pool: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """The row's [n, Hq, D]."""
    if row.kv_slots is None:
        keys, values = key[row.start : row.end], value[row.start : row.end]
    else:
        keys, values = key_pool.index_select(0, row.kv_slots), value_pool.index_select(0, row.kv_slots)
    attended = F.scaled_dot_product_attention(
        query[row.start : row.end].transpose(0, 1)[None],
        keys.transpose(0, 1)[None],
        values.transpose(0, 1)[None],
        attn_mask=row.bias,
        is_causal=row.bias is None,
        scale=scale,
        enable_gqa=query.shape[1] != keys.shape[1],
    )
    return attended[0].transpose(0, 1)
