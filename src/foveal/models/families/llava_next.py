"""LLaVA-NeXT: one global view and a grid of tiles; padding cut away, a newline feature after each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers.image_processing_utils import select_best_resolution

from foveal.models.families.llava import num_class_tokens, patch_size, selects_patches_only
from foveal.models.family import Detail, PreparedImage, VisionContext, VisionFamily

__all__ = ["FAMILY", "num_unpadded_features"]


def num_unpadded_features(height: int, width: int, grid_height: int, grid_width: int) -> int:
    """Features of the tile grid (in patches) that are left when the padding around the picture is cut away.

    One newline feature per remaining row included. Source: LlavaNextModel.pack_image_features.
    """
    if width / height > grid_width / grid_height:
        padding = (grid_height - int(round(height * (grid_width / width), 7))) // 2
        grid_height -= 2 * padding
    else:
        padding = (grid_width - int(round(width * (grid_height / height), 7))) // 2
        grid_width -= 2 * padding
    return grid_height * grid_width + grid_height


class LlavaNextFamily(VisionFamily):
    model_type = "llava_next"
    pixel_budget = True

    def prepare(self, context: VisionContext, image: Image.Image, detail: Detail) -> PreparedImage:
        outputs = context.image_processor(image, return_tensors="np")
        tiles, size = outputs["pixel_values"][0], outputs["image_sizes"][0]
        height, width = (int(side) for side in size)
        tile_height, tile_width = tiles.shape[-2:]
        rows, columns = tile_height // patch_size(context), tile_width // patch_size(context)
        best_height, best_width = select_best_resolution([height, width], context.image_processor.image_grid_pinpoints)
        grid = (rows * (best_height // tile_height), columns * (best_width // tile_width))
        num_tokens = rows * columns + num_class_tokens(context) - int(selects_patches_only(context))
        num_tokens += num_unpadded_features(height, width, *grid)
        token = context.token(self.image_token_id(context.config))
        arrays = {"pixel_values": tiles, "image_sizes": size}
        return PreparedImage(arrays, token * num_tokens, num_tokens, len(tiles) * rows * columns)

    def price_options(self, context: VisionContext) -> dict[str, Any]:
        return {
            "tile": context.image_processor.crop_size["height"],
            "patch_size": patch_size(context),
            "pinpoints": [list(map(int, size)) for size in context.image_processor.image_grid_pinpoints],
            "class_tokens": num_class_tokens(context),
            "drops_first": int(selects_patches_only(context)),
        }

    def encode_inputs(self, images: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return {
            "pixel_values": torch.cat([image["pixel_values"] for image in images]),
            "image_sizes": torch.stack([image["image_sizes"] for image in images]),
        }


FAMILY = LlavaNextFamily()
