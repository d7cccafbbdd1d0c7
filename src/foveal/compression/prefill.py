"""Whole prompts as one step of the model: what calibration runs, with nothing cached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from foveal.compression.calibration_inputs import PreparedSample
from foveal.kernels.attention_batch import AttentionBatch, KVCache
from foveal.models.base import ModelStep
from foveal.models.image_input import ImageInput
from foveal.models.language_model import TransformersModel
from foveal.models.vision_batching import batch_images

__all__ = ["MAX_BATCH_TOKENS", "PrefillBatch", "build_step", "encode", "make_batches", "scratch_cache"]

MAX_BATCH_TOKENS = 1024
_BLOCK_SIZE = 16


@dataclass(frozen=True)
class PrefillBatch:
    """Samples computed together, all to fit on or all to judge on (`held_out`)."""

    samples: tuple[PreparedSample, ...]
    held_out: bool

    @property
    def images(self) -> list[ImageInput]:
        return [image for sample in self.samples for image in sample.prompt.images]

    @property
    def image_mask(self) -> torch.Tensor:
        """[T] over the flattened tokens."""
        return torch.from_numpy(np.concatenate([sample.image_mask for sample in self.samples]))

    @property
    def answer_mask(self) -> torch.Tensor:
        """[T] over the flattened tokens."""
        return torch.from_numpy(np.concatenate([sample.answer_mask for sample in self.samples]))


def make_batches(
    samples: Sequence[PreparedSample], held_out: bool, max_tokens: int = MAX_BATCH_TOKENS
) -> list[PrefillBatch]:
    """In order, as many samples together as fit `max_tokens`; a longer sample stands alone."""
    groups: list[list[PreparedSample]] = []
    total = 0
    for sample in samples:
        if not groups or total + sample.num_tokens > max_tokens:
            groups.append([])
            total = 0
        groups[-1].append(sample)
        total += sample.num_tokens
    return [PrefillBatch(tuple(group), held_out) for group in groups]


def encode(model: TransformersModel, batch: PrefillBatch) -> list[torch.Tensor]:
    """Features of the batch's images, in order, each [num_tokens, feature_width]."""
    images = batch.images
    features: dict[int, torch.Tensor] = {}
    for group in batch_images(images):
        encoded = model.encode_images([images[index] for index in group])
        features.update(zip(group, encoded, strict=True))
    return [features[index] for index in range(len(images))]


def build_step(model: TransformersModel, batch: PrefillBatch, features: Sequence[torch.Tensor]) -> ModelStep:
    """The batch with its image features in place."""
    positions, slots, tables, pieces = [], [], [], []
    q_starts, kv_lens = [0], []
    span_ids: list[torch.Tensor | None] = []
    remaining = iter(features)
    next_block = 0
    for sample in batch.samples:
        length = sample.num_tokens
        positions.append(model.rope_positions(sample.prompt)[0])
        slots.append(torch.arange(length) + next_block * _BLOCK_SIZE)
        num_blocks = -(-length // _BLOCK_SIZE)
        tables.append(torch.arange(next_block, next_block + num_blocks))
        next_block += num_blocks
        q_starts.append(q_starts[-1] + length)
        kv_lens.append(length)
        ours = [next(remaining) for _ in sample.prompt.images]
        numbers = torch.full((length,), -1)
        for number, span in enumerate(sample.prompt.spans):
            pieces.append(ours[span.image_index][span.feature_offset : span.feature_offset + span.length])
            numbers[span.offset : span.end] = number
        span_ids.append(numbers if sample.prompt.spans else None)
    mask = batch.image_mask
    return ModelStep(
        token_ids=torch.tensor([token for sample in batch.samples for token in sample.prompt.token_ids]),
        positions=torch.cat(positions, 1),
        image_mask=mask if pieces else None,
        image_features=torch.cat(pieces) if pieces else None,
        attention=AttentionBatch(
            slots=torch.cat(slots),
            block_tables=torch.nn.utils.rnn.pad_sequence(tables, batch_first=True),
            q_starts=q_starts,
            kv_lens=kv_lens,
            span_ids=span_ids if model.spec.atomic_image_spans else None,
        ),
    )


def scratch_cache(model: TransformersModel, batches: Sequence[PrefillBatch]) -> KVCache:
    """A pool for one batch at a time. All layers share one layer's memory: nothing is read after its layer ran."""
    most = max(sum(-(-sample.num_tokens // _BLOCK_SIZE) for sample in batch.samples) for batch in batches)
    spec = model.spec
    shape = (1, (most + 1) * _BLOCK_SIZE, spec.num_kv_heads, spec.head_dim)
    key, value = (torch.zeros(shape, dtype=model.dtype).expand(spec.num_layers, *shape[1:]) for _ in range(2))
    return KVCache(key, value, _BLOCK_SIZE)
