"""LLaVA 1.5 and models in its format: one fixed-size view per image, one token per patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from foveal.models.family import Detail, PreparedImage, VisionContext, VisionFamily

__all__ = ["FAMILY", "num_class_tokens", "patch_size", "selects_patches_only"]

_TOWERS_WITHOUT_CLASS_TOKEN = {"siglip_vision_model", "siglip2_vision_model", "pixtral"}


def patch_size(context: VisionContext) -> int:
    """Pixels per patch side."""
    return int(context.settings.get("patch_size") or context.config.vision_config.patch_size)


def num_class_tokens(context: VisionContext) -> int:
    """Tokens that the tower puts before the patches (CLS)."""
    found = context.settings.get("num_additional_image_tokens")
    if found is not None:
        return int(found)
    return 0 if context.config.vision_config.model_type in _TOWERS_WITHOUT_CLASS_TOKEN else 1


def selects_patches_only(context: VisionContext) -> bool:
    """True if the model drops the first token of the tower's output."""
    strategy = context.settings.get("vision_feature_select_strategy")
    return (strategy or context.config.vision_feature_select_strategy) == "default"


class LlavaFamily(VisionFamily):
    model_type = "llava"

    def prepare(self, context: VisionContext, image: Image.Image, detail: Detail) -> PreparedImage:
        pixels = context.image_processor(image, return_tensors="np")["pixel_values"][0]
        side = patch_size(context)
        num_patches = (pixels.shape[-2] // side) * (pixels.shape[-1] // side)
        num_tokens = num_patches + num_class_tokens(context) - int(selects_patches_only(context))
        token = context.token(self.image_token_id(context.config))
        return PreparedImage({"pixel_values": pixels}, token * num_tokens, num_tokens, num_patches)

    def price_options(self, context: VisionContext) -> dict[str, Any]:
        return {
            "image_size": context.image_processor.crop_size["height"],
            "patch_size": patch_size(context),
            "class_tokens": num_class_tokens(context),
            "drops_first": int(selects_patches_only(context)),
        }

    def encode_inputs(self, images: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return {"pixel_values": torch.stack([image["pixel_values"] for image in images])}


FAMILY = LlavaFamily()
