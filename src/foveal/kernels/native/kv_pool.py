"""The paged KV pool and one step over it, as the native kernels take them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from foveal.kernels.attention_batch import AttentionBatch, KVCache
from foveal.kernels.native.extension import require_native

__all__ = ["NativePool", "StepArrays", "step_arrays", "visible_ends"]

StepArrays = tuple[
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
    npt.NDArray[np.int32],
    npt.NDArray[np.int32],
    npt.NDArray[np.int32] | None,
]
"""slots [T], block_tables [S, B], q_starts [S + 1], kv_lens [S], visible_ends [T] or None."""


class NativePool:
    """Finds the extension's view of a KVCache; keeps the last one, since an engine has one pool."""

    def __init__(self) -> None:
        self._cache: KVCache | None = None
        self._pool: Any = None

    def of(self, cache: KVCache) -> Any:
        """Raises ValueError unless the pool is float32, float16, or int8 with scales, in one piece on the CPU."""
        if self._cache is not cache:
            scales = [None if scale is None else scale.numpy() for scale in (cache.key_scale, cache.value_scale)]
            self._pool = require_native().Pool(cache.key.numpy(), cache.value.numpy(), *scales, cache.block_size)
            self._cache = cache
        return self._pool


def step_arrays(batch: AttentionBatch) -> StepArrays:
    """The integers of a step; built once per step, not once per layer."""
    return (
        batch.slots.numpy(),
        batch.block_tables.numpy(),
        np.array(batch.q_starts, dtype=np.int32),
        np.array(batch.kv_lens, dtype=np.int32),
        visible_ends(batch),
    )


def visible_ends(batch: AttentionBatch) -> npt.NDArray[np.int32] | None:
    """[T] the end of the positions that each new token sees, or None where all rows are plainly causal.

    A token inside an image span sees to the end of the span: spans are contiguous, so what it sees is one range.
    """
    if batch.span_ids is None:
        return None
    ends = []
    for row, kv_len in enumerate(batch.kv_lens):
        start = kv_len - (batch.q_starts[row + 1] - batch.q_starts[row])
        end = torch.arange(start + 1, kv_len + 1)
        spans = batch.span_ids[row]
        if spans is not None and kv_len > start:
            borders = (spans[1:kv_len] != spans[: kv_len - 1]).nonzero()[:, 0] + 1
            borders = torch.cat((borders, torch.tensor([kv_len])))
            span_end = borders[torch.searchsorted(borders, torch.arange(start, kv_len), right=True)]
            end = torch.where(spans[start:kv_len] >= 0, span_end, end)
        ends.append(end)
    return torch.cat(ends).to(torch.int32).numpy()
