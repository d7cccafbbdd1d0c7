"""Qwen3-VL: Qwen2.5-VL's layout, and features of several tower layers added inside the decoder (deepstack)."""

from __future__ import annotations

from transformers import PreTrainedConfig

from foveal.models.families.qwen2_5_vl import Qwen2_5VLFamily

__all__ = ["FAMILY"]


class Qwen3VLFamily(Qwen2_5VLFamily):
    model_type = "qwen3_vl"

    def deepstack_levels(self, config: PreTrainedConfig) -> int:
        return len(config.vision_config.deepstack_visual_indexes)


FAMILY = Qwen3VLFamily()
