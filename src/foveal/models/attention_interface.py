"""Our attention kernels under transformers' AttentionInterface: the text stack ("foveal") and vision towers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from transformers import AttentionInterface, PreTrainedModel

from foveal.kernels.attention_batch import AttentionBatch, KVCache
from foveal.kernels.paged_attention import paged_attention
from foveal.kernels.varlen_attention import varlen_attention

__all__ = ["attention_step", "use_paged_attention", "use_varlen_attention"]

PAGED = "foveal"
VARLEN = "foveal_flash_varlen"
"""transformers hands over packed sequences in one call, with their boundaries, only if the name contains "flash"."""

# Per context, not global: two models in one process, or two threads, never see each other's step.
_STEP: ContextVar[tuple[AttentionBatch, KVCache]] = ContextVar("foveal_attention_step")


@contextmanager
def attention_step(batch: AttentionBatch, kv_cache: KVCache) -> Iterator[None]:
    """While active, "foveal" attention of this thread reads and writes `kv_cache` as `batch` says."""
    token = _STEP.set((batch, kv_cache))
    try:
        yield
    finally:
        _STEP.reset(token)


def use_paged_attention(model: PreTrainedModel) -> None:
    """Make the text stack of `model` call our paged attention; a vision tower keeps its own."""
    sub_configs = getattr(model.config, "sub_configs", {})
    model.set_attn_implementation({"text_config": PAGED} if "text_config" in sub_configs else PAGED)


def use_varlen_attention(tower: torch.nn.Module) -> None:
    """Make a vision tower that packs images of different sizes call `varlen_attention` once per layer."""
    tower.config._attn_implementation = VARLEN


def _paged(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """query [1, Hq, T, D], key and value [1, Hkv, T, D] -> ([1, T, Hq, D], None). The mask is always None."""
    batch, kv_cache = _STEP.get()
    attended = paged_attention(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        kv_cache.key[module.layer_idx],
        kv_cache.value[module.layer_idx],
        batch,
        block_size=kv_cache.block_size,
        scale=scaling,
        sliding_window=sliding_window,
    )
    return attended[None], None


def _varlen(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    cu_seq_lens_q: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """query, key, value [1, H, N, D] -> ([1, N, H, D], None); boundaries in cu_seq_lens_q [segments + 1]."""
    if cu_seq_lens_q is None:
        lengths: tuple[int, ...] = (query.shape[2],)
    else:
        lengths = tuple(cu_seq_lens_q.diff().tolist())
    packed = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return varlen_attention(*packed, lengths, scale=scaling)[None], None


# Without a mask function of the same name transformers builds no mask at all.
AttentionInterface.register(PAGED, _paged)
AttentionInterface.register(VARLEN, _varlen)
