"""Qwen2.5-VL: native resolution, patches merged 2 x 2, positions in three dimensions (M-RoPE)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel

from foveal.models.attention_interface import use_varlen_attention
from foveal.models.family import Detail, PreparedImage, VisionContext, VisionFamily
from foveal.models.image_input import PromptInput

__all__ = ["FAMILY", "Qwen2_5VLFamily"]


class Qwen2_5VLFamily(VisionFamily):  # noqa: N801 - the model's name
    model_type = "qwen2_5_vl"
    pixel_budget = True
    # M-RoPE indices are laid out per run of image tokens: adjacent images would look like one.
    needs_text_between_images = True

    def prepare(self, context: VisionContext, image: Image.Image, detail: Detail) -> PreparedImage:
        outputs = context.image_processor(image, return_tensors="np")
        grid = outputs["image_grid_thw"][0]
        num_patches = int(grid.prod())
        num_tokens = num_patches // context.image_processor.merge_size**2
        token = context.token(self.image_token_id(context.config))
        arrays = {"pixel_values": outputs["pixel_values"], "image_grid_thw": grid}
        return PreparedImage(arrays, token * num_tokens, num_tokens, num_patches)

    def price_options(self, context: VisionContext) -> dict[str, Any]:
        processor = context.image_processor
        return {
            "patch_size": processor.patch_size,
            "merge_size": processor.merge_size,
            "min_pixels": processor.size["shortest_edge"],
            "max_pixels": processor.size["longest_edge"],
        }

    def encode_inputs(self, images: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return {
            "pixel_values": torch.cat([image["pixel_values"] for image in images]),
            "image_grid_thw": torch.stack([image["image_grid_thw"] for image in images]),
        }

    def prepare_model(self, model: PreTrainedModel) -> None:
        use_varlen_attention(model.model.visual)

    def rope_positions(self, core: PreTrainedModel, prompt: PromptInput) -> tuple[torch.Tensor, int]:
        length = len(prompt.token_ids)
        if not prompt.images:
            return torch.arange(length).expand(3, -1), 0
        # 0 text, 1 image: tells transformers where the grids go.
        types = torch.zeros((1, length), dtype=torch.int32)
        for span in prompt.spans:
            types[0, span.offset : span.offset + span.length] = 1
        positions, delta = core.get_rope_index(
            torch.tensor(prompt.token_ids)[None],
            mm_token_type_ids=types,
            image_grid_thw=torch.from_numpy(np.stack([image.arrays["image_grid_thw"] for image in prompt.images])),
        )
        return positions[:, 0], int(delta[0, 0])


FAMILY = Qwen2_5VLFamily()
