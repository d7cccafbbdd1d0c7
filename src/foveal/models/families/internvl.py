"""InternVL in transformers' format: tiles in the best-fitting grid and a thumbnail, between start and end tokens."""

from __future__ import annotations

from typing import Any

from PIL import Image

from foveal.models.family import Detail, PreparedImage, VisionContext, VisionFamily

__all__ = ["FAMILY"]


class InternVLFamily(VisionFamily):
    model_type = "internvl"

    def prepare(self, context: VisionContext, image: Image.Image, detail: Detail) -> PreparedImage:
        # transformers' processor always tiles, whatever the image processor's own default says. Low detail does not.
        tiles = context.image_processor(image, crop_to_patches=detail != "low", return_tensors="np")["pixel_values"]
        vision = context.config.vision_config
        patches = (tiles.shape[-2] // vision.patch_size[0]) * (tiles.shape[-1] // vision.patch_size[1])
        num_tokens = int(patches * context.config.downsample_ratio**2) * len(tiles)
        start = getattr(context.tokenizer, "start_image_token", "<img>")
        end = getattr(context.tokenizer, "end_image_token", "</img>")
        block = context.token(self.image_token_id(context.config)) * num_tokens
        return PreparedImage({"pixel_values": tiles}, f"{start}{block}{end}", num_tokens, patches * len(tiles))

    def price_options(self, context: VisionContext) -> dict[str, Any]:
        processor = context.image_processor
        return {
            "tile": processor.size["height"],
            "patch_size": context.config.vision_config.patch_size[0],
            "downsample_ratio": context.config.downsample_ratio,
            "min_tiles": processor.min_patches,
            "max_tiles": processor.max_patches,
        }


FAMILY = InternVLFamily()
