"""Size and allocate the KV pool."""

from __future__ import annotations

import psutil
import torch

from foveal.core.errors import ConfigurationError
from foveal.core.model_spec import ModelSpec
from foveal.kernels.attention_batch import KVCache

__all__ = ["allocate_kv_cache", "blocks_that_fit"]


_SCALE_BYTES = 4  # float32, one per token and head of an int8 pool


def blocks_that_fit(
    spec: ModelSpec,
    *,
    kv_dtype: torch.dtype,
    block_size: int,
    max_num_seqs: int,
    max_model_len: int,
    memory_utilization: float,
    free_bytes: int | None = None,
) -> int:
    """KV blocks for `memory_utilization` of the free memory, and no more than all sequences could ever use.

    Raises ConfigurationError if not even one sequence of max_model_len fits.
    """
    free = psutil.virtual_memory().available if free_bytes is None else free_bytes
    block_bytes = block_size * spec.kv_bytes_per_token(kv_dtype.itemsize, _SCALE_BYTES if kv_dtype == torch.int8 else 0)
    blocks_per_sequence = -(-max_model_len // block_size)
    fits = int(free * memory_utilization) // block_bytes
    if fits < blocks_per_sequence:
        raise ConfigurationError(
            f"one sequence of {max_model_len:,} tokens needs {blocks_per_sequence * block_bytes:,} bytes of KV cache; "
            f"{memory_utilization:.0%} of the free memory is {int(free * memory_utilization):,} bytes. "
            f"Lower --max-model-len to at most {fits * block_size:,} or raise --memory-utilization"
        )
    return min(fits, blocks_per_sequence * max_num_seqs)


def allocate_kv_cache(
    spec: ModelSpec, *, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
) -> KVCache:
    """A pool of num_blocks, and one dummy block behind them for padding to write to; with scales if `dtype` is int8."""
    vectors = (spec.num_layers, (num_blocks + 1) * block_size, spec.num_kv_heads)
    shape = (*vectors, spec.head_dim)
    # zeros, not empty: a masked-out slot must not hold a NaN, and the operating system gives zero pages lazily anyway.
    key, value = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
    if dtype != torch.int8:
        return KVCache(key, value, block_size)
    scales = (torch.zeros(vectors, dtype=torch.float32, device=device) for _ in range(2))
    return KVCache(key, value, block_size, *scales)
