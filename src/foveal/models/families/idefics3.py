"""Idefics 3: a grid of tiles, each with marker tokens for its row and column, then one global view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from foveal.models.family import Detail, PreparedImage, VisionContext, VisionFamily

__all__ = ["FAMILY", "Idefics3Family"]

_FAKE = "<fake_token_around_image>"
_GLOBAL = "<global-img>"


class Idefics3Family(VisionFamily):
    model_type = "idefics3"

    def prepare(self, context: VisionContext, image: Image.Image, detail: Detail) -> PreparedImage:
        # Low detail is the global view alone; the checkpoint decides otherwise.
        options = {"do_image_splitting": False} if detail == "low" else {}
        outputs = context.image_processor(image, return_row_col_info=True, return_tensors="np", **options)
        tiles = outputs["pixel_values"][0]
        rows, columns = outputs["rows"][0][0], outputs["cols"][0][0]
        vision = context.config.vision_config
        patches = (tiles.shape[-2] // vision.patch_size) * (tiles.shape[-1] // vision.patch_size)
        per_tile = int(patches / context.config.scale_factor**2)
        block = context.token(self.image_token_id(context.config)) * per_tile
        text = ""
        for row in range(rows):
            for column in range(columns):
                text += f"{_FAKE}<row_{row + 1}_col_{column + 1}>{block}"
            text += "\n"
        text += "\n" if rows else ""
        text += f"{_FAKE}{_GLOBAL}{block}{_FAKE}"
        arrays = {"pixel_values": tiles}
        if "pixel_attention_mask" in outputs:
            arrays["pixel_attention_mask"] = outputs["pixel_attention_mask"][0]
        return PreparedImage(arrays, text, per_tile * len(tiles), patches * len(tiles))

    def price_options(self, context: VisionContext) -> dict[str, Any]:
        processor = context.image_processor
        return {
            "longest_edge": processor.size["longest_edge"],
            "tile": processor.max_image_size["longest_edge"],
            "patch_size": context.config.vision_config.patch_size,
            "scale_factor": context.config.scale_factor,
            "splits": bool(processor.do_image_splitting),
        }

    def encode_inputs(self, images: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        # The model wants (batch, images, ...); all tiles count as images of one sample.
        return {name: torch.cat([image[name] for image in images])[None] for name in images[0]}


FAMILY = Idefics3Family()
