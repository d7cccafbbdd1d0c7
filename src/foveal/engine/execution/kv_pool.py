"""Size and allocate the KV pool."""

from __future__ import annotations

import math
import mmap
from contextlib import suppress

import torch

from foveal.core.errors import ConfigurationError
from foveal.core.model_spec import ModelSpec
from foveal.kernels.attention_batch import KVCache

__all__ = ["allocate_kv_cache", "blocks_that_fit", "kv_block_bytes"]


_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
_SCALE_BYTES = 4  # float32, one per token and head of an int8 pool


def blocks_that_fit(
    spec: ModelSpec,
    *,
    kv_dtype: torch.dtype,
    block_size: int,
    max_num_seqs: int,
    max_model_len: int,
    memory_utilization: float,
    free_bytes: int,
) -> int:
    """KV blocks for `memory_utilization` of `free_bytes`, and no more than all sequences could ever use.

    Raises ConfigurationError if not even one sequence of max_model_len fits.
    """
    block_bytes = kv_block_bytes(spec, kv_dtype, block_size)
    blocks_per_sequence = -(-max_model_len // block_size)
    fits = int(free_bytes * memory_utilization) // block_bytes
    if fits < blocks_per_sequence:
        raise ConfigurationError(
            f"one sequence of {max_model_len:,} tokens needs {blocks_per_sequence * block_bytes:,} bytes of KV cache; "
            f"{memory_utilization:.0%} of the free memory is {int(free_bytes * memory_utilization):,} bytes. "
            f"Lower --max-model-len to at most {fits * block_size:,} or raise --memory-utilization"
        )
    return min(fits, blocks_per_sequence * max_num_seqs)


def kv_block_bytes(spec: ModelSpec, kv_dtype: torch.dtype, block_size: int) -> int:
    """Bytes of one block in all layers, scales included."""
    return block_size * spec.kv_bytes_per_token(kv_dtype.itemsize, _SCALE_BYTES if kv_dtype == torch.int8 else 0)


def allocate_kv_cache(
    spec: ModelSpec, *, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
) -> KVCache:
    """A pool of num_blocks, and one dummy block behind them for padding to write to; with scales if `dtype` is int8."""
    vectors = (spec.num_layers, (num_blocks + 1) * block_size, spec.num_kv_heads)
    shape = (*vectors, spec.head_dim)
    key, value = (_zeros(shape, dtype, device) for _ in range(2))
    if dtype != torch.int8:
        return KVCache(key, value, block_size)
    scales = (_zeros(vectors, torch.float32, device) for _ in range(2))
    return KVCache(key, value, block_size, *scales)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """zeros, not empty: a masked-out slot must not hold a NaN. On a CPU they are pages of their own, which cost memory
    when they are first written; torch.zeros writes all of them at once, and calloc those it has had before."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    pages = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, **_PRIVATE)
    with suppress(AttributeError, OSError):  # not every kernel has huge pages
        pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=torch.uint8).view(dtype).view(shape)  # it keeps the mapping
