"""Gemma 3: a fixed number of tokens per view that see each other in both directions; sliding-window layers."""

from __future__ import annotations

from typing import Any

from PIL import Image
from transformers import PreTrainedConfig

from foveal.models.family import Detail, PreparedImage, VisionContext, VisionFamily

__all__ = ["FAMILY"]


class Gemma3Family(VisionFamily):
    model_type = "gemma3"
    atomic_image_spans = True

    def placeholder_id(self, config: PreTrainedConfig) -> int:
        return int(config.boi_token_id)

    def prepare(self, context: VisionContext, image: Image.Image, detail: Detail) -> PreparedImage:
        # Low detail never pans and scans; the checkpoint decides otherwise.
        options = {"do_pan_and_scan": False} if detail == "low" else {}
        outputs = context.image_processor(image, return_tensors="np", **options)
        views, crops = outputs["pixel_values"], int(outputs["num_crops"][0])
        config = context.config
        per_view = int(config.mm_tokens_per_image)
        begin, end = context.token(config.boi_token_id), context.token(config.eoi_token_id)
        view = f"\n\n{begin}{context.token(self.image_token_id(config)) * per_view}{end}\n\n"
        text = view
        if crops:
            text = f"Here is the original image {view} and here are some crops to help you see better "
            text += " ".join([view] * crops)
        side = config.vision_config.patch_size
        patches = (views.shape[-2] // side) * (views.shape[-1] // side)
        return PreparedImage({"pixel_values": views}, text, per_view * len(views), patches * len(views))

    def price_options(self, context: VisionContext) -> dict[str, Any]:
        processor = context.image_processor
        options: dict[str, Any] = {
            "image_size": processor.size["height"],
            "patch_size": context.config.vision_config.patch_size,
            "tokens_per_view": int(context.config.mm_tokens_per_image),
        }
        if processor.do_pan_and_scan:
            options |= {
                "pan_and_scan": True,
                "max_crops": processor.pan_and_scan_max_num_crops,
                "min_crop_size": processor.pan_and_scan_min_crop_size,
                "min_ratio": processor.pan_and_scan_min_ratio_to_activate,
            }
        return options


FAMILY = Gemma3Family()
