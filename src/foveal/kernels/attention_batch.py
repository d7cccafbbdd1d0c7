"""What attention needs to know about one step over the paged KV pool."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from foveal.kernels.attention_plan import AttentionPlan

__all__ = ["AttentionBatch", "KVCache"]


@dataclass(slots=True)
class KVCache:
    """The KV pool. slot = block_table[pos // block_size] * block_size + pos % block_size.

    `key` and `value` are [layers, slots, kv_heads, head_dim], slots = (blocks + 1) * block_size: the last block is a
    dummy that padding may overwrite.
    """

    key: torch.Tensor
    value: torch.Tensor
    block_size: int
    key_scale: torch.Tensor | None = None
    """float32 [layers, slots, kv_heads] where `key` holds int8 codes: one scale per token and head."""
    value_scale: torch.Tensor | None = None

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Everything that belongs to a slot; the second dimension counts slots."""
        return [t for t in (self.key, self.value, self.key_scale, self.value_scale) if t is not None]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def num_layers(self) -> int:
        return self.key.shape[0]

    @property
    def num_blocks(self) -> int:
        """Usable blocks, without the dummy."""
        return self.key.shape[1] // self.block_size - 1


@dataclass(slots=True)
class AttentionBatch:
    """S requests, T new tokens in all, flattened in request order. All integers int64 on the model's device.

    Row s has query tokens [q_starts[s], q_starts[s+1]), which are the last ones of its kv_lens[s] positions.
    """

    slots: torch.Tensor
    """[T] where each new token's K and V go."""
    block_tables: torch.Tensor
    """[S, B], padded with 0."""
    q_starts: list[int]
    """S + 1 offsets."""
    kv_lens: list[int]
    """S lengths, the new tokens included."""
    span_ids: list[torch.Tensor | None] | None = None
    """For models with bidirectional image spans: per row None, or [kv_len] with the span number of each position and -1
    for text."""
    plan: AttentionPlan | None = field(default=None, init=False, repr=False, compare=False)
    """Indices derived from the fields above, built by the first layer and shared by the others."""
