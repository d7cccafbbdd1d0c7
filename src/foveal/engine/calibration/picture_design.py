"""Which pictures to encode for a calibration."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from foveal.models.image_input import ImageInput
from foveal.models.processing.processor import Processor

__all__ = ["PicturePoint", "picture_design"]

SIDES = (112, 224, 336, 448, 672, 896)
MOST_PATCHES = 4096
"""Of one picture, and of one batch: larger ones take seconds each on a CPU."""


@dataclass(frozen=True, slots=True)
class PicturePoint:
    name: str
    images: tuple[ImageInput, ...]
    held_out: bool = False

    @property
    def patches(self) -> tuple[int, ...]:
        return tuple(image.encode_tokens for image in self.images)


def picture_design(processor: Processor) -> list[PicturePoint]:
    """Batches of one size, and held out: batches between them, two sizes together."""
    sizes = _sizes(processor)
    points = []
    for image in sizes:
        counts = (1, 2, 4) if len(sizes) > 1 else (1, 2, 4, 6)
        points += [_batch([image] * count) for count in counts if count * image.encode_tokens <= MOST_PATCHES]
        if 3 * image.encode_tokens <= MOST_PATCHES:
            points.append(_batch([image] * 3, held_out=True))
    if len(sizes) > 1:
        points.append(_batch([sizes[0], sizes[0], sizes[1]], held_out=True))
    elif sizes and 5 * sizes[0].encode_tokens <= MOST_PATCHES:
        points.append(_batch([sizes[0]] * 5, held_out=True))
    return points


def _sizes(processor: Processor) -> list[ImageInput]:
    """One picture for each number of patches that the processor makes of squares."""
    if processor.placeholder is None:
        return []
    rng = random.Random(0)
    found: dict[int, ImageInput] = {}
    for side in SIDES:
        picture = Image.frombytes("RGB", (side, side), rng.randbytes(3 * side * side))
        [image] = processor.prepare(processor.placeholder, [picture]).images
        if not found or image.encode_tokens <= MOST_PATCHES:
            found.setdefault(image.encode_tokens, image)
    return [found[patches] for patches in sorted(found)]


def _batch(images: Sequence[ImageInput], *, held_out: bool = False) -> PicturePoint:
    patches = [image.encode_tokens for image in images]
    counts = {size: patches.count(size) for size in sorted(set(patches))}
    name = "encode " + " + ".join(f"{count} x {size} patches" for size, count in counts.items())
    return PicturePoint(name, tuple(images), held_out)
