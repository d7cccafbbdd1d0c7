"""A preprocessed image on its way from the processor to the vision encoder. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from foveal.core.image_span import ImageSpan

__all__ = ["ImageInput", "PromptInput"]


@dataclass(frozen=True, slots=True)
class ImageInput:
    """`arrays` are the image processor's outputs for this one image, without a batch dimension.

    For example {"pixel_values": [3, H, W]} (LLaVA), {"pixel_values": [patches, C*p*p], "image_grid_thw": [3]} (Qwen-VL)
    or {"pixel_values": [tiles, 3, H, W], "pixel_attention_mask": [tiles, H, W]} (Idefics 3).
    """

    arrays: dict[str, npt.NDArray[np.generic]]
    num_tokens: int
    """Placeholder tokens that the language model sees for it."""
    encode_tokens: int
    """Patches before merging: what the encoder computes."""
    content_hash: bytes
    """16 bytes over arrays: equal images have equal hashes whatever file they came from."""


@dataclass(frozen=True, slots=True)
class PromptInput:
    """Token ids with every image placeholder expanded, and what to put in its place."""

    token_ids: list[int]
    images: tuple[ImageInput, ...] = ()
    spans: tuple[ImageSpan, ...] = ()
