"""The seam between the engine and a model: everything the runner calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from foveal.core.model_spec import ModelSpec
from foveal.kernels.attention_batch import AttentionBatch, KVCache
from foveal.models.image_input import ImageInput, PromptInput
from foveal.models.linears import PackedLinear

__all__ = ["LanguageModel", "ModelStep"]


@dataclass(slots=True)
class ModelStep:
    """Inputs of one mixed prefill and decode step over T flattened tokens."""

    token_ids: torch.Tensor
    """[T] int64. Placeholder ids may exceed the vocabulary."""
    positions: torch.Tensor
    """[P, T] int64; P is 3 with M-RoPE, else 1."""
    image_mask: torch.Tensor | None
    """[T] bool, True where an image feature replaces the embedding; None when no row has one."""
    image_features: torch.Tensor | None
    """[image_mask.sum(), feature_width], in token order."""
    attention: AttentionBatch


class LanguageModel(Protocol):
    """A loaded model, text-only or with vision. One contract test covers every family and both decoders."""

    spec: ModelSpec
    dtype: torch.dtype
    device: torch.device

    def encode_images(self, images: Sequence[ImageInput]) -> list[torch.Tensor]:
        """One [num_tokens, feature_width] tensor per image, in order. Images of one call should have one shape."""

    def rope_positions(self, prompt: PromptInput) -> tuple[torch.Tensor, int]:
        """([P, len(token_ids)] int64 positions, delta): an output token at index i has position i + delta."""

    def forward(self, step: ModelStep, kv_cache: KVCache) -> torch.Tensor:
        """Writes K and V of the step's tokens into the cache and returns final hidden states [T, hidden]."""

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[S, hidden] -> [S, vocab] in float32."""

    def cut_head(self, token_ids: torch.Tensor) -> PackedLinear | None:
        """compute_logits for these tokens alone, [S, hidden] -> [S, n]; None where that cannot be had."""
