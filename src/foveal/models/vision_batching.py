"""Which images of a step the vision encoder computes together. Pure; no torch."""

from __future__ import annotations

from collections.abc import Sequence

from foveal.kernels.length_groups import group_by_length
from foveal.models.image_input import ImageInput

__all__ = ["MAX_BATCH_ENCODE_TOKENS", "batch_images"]

MAX_BATCH_ENCODE_TOKENS = 16_384
"""Patches per encoder call: bounds activation memory; one image may exceed it alone."""


def batch_images(images: Sequence[ImageInput], *, max_encode_tokens: int = MAX_BATCH_ENCODE_TOKENS) -> list[list[int]]:
    """Partition the indices of `images` into encoder calls.

    Towers of one fixed size take images whose tiles have the same shape. Towers that pack patches of any size (Qwen)
    take images of similar length: attention pads them to a multiple of 8, at most 30 % of it wasted.
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    packed: list[int] = []
    for index, image in enumerate(images):
        shape = image.arrays["pixel_values"].shape
        if len(shape) == 2:
            packed.append(index)
        else:
            by_shape.setdefault(shape[-3:], []).append(index)
    groups = list(by_shape.values())
    lengths = [images[index].encode_tokens for index in packed]
    groups += [sorted(packed[member] for member in group.members) for group in group_by_length(lengths)]
    return [batch for group in groups for batch in _bounded(group, images, max_encode_tokens)]


def _bounded(group: list[int], images: Sequence[ImageInput], limit: int) -> list[list[int]]:
    batches: list[list[int]] = [[]]
    total = 0
    for index in group:
        size = images[index].encode_tokens
        if batches[-1] and total + size > limit:
            batches.append([])
            total = 0
        batches[-1].append(index)
        total += size
    return batches
