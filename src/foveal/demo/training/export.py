"""From a training checkpoint to the adapter file that is shipped."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from foveal.demo.adapter import fold_feature_scale, save_adapter
from foveal.demo.training.decoder import LINEARS

__all__ = ["export_adapter", "low_rank_names", "projector_names"]


def projector_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`0.weight` of the training projector is transformers' `linear_1.weight`; `2` is `linear_2`."""
    return {name.replace("0.", "linear_1.", 1).replace("2.", "linear_2.", 1): v for name, v in state.items()}


def low_rank_names(state: dict[str, torch.Tensor], scale: float) -> dict[str, torch.Tensor]:
    """`layers.3.updates.q_proj.down` -> `layers.3.self_attn.q_proj.lora_A`, with the scale folded into A."""
    renamed = {}
    for name, value in state.items():
        if ".updates." not in name:
            continue
        layer, linear, part = name.replace("updates.", "").rsplit(".", 2)
        block = "self_attn" if linear in LINEARS[:4] else "mlp"
        suffix, factor = ("lora_A", scale) if part == "down" else ("lora_B", 1.0)
        renamed[f"{layer}.{block}.{linear}.{suffix}"] = value * factor
    return renamed


def export_adapter(checkpoint: Path, target: Path, scale: float) -> dict[str, str]:
    """Writes the fp16 adapter and returns its metadata."""
    saved = torch.load(checkpoint, map_location="cpu")
    projector = fold_feature_scale(projector_names(saved["projector"]), saved["mean"], saved["deviation"])
    metadata = {
        "minutes": f"{saved['minutes']:.1f}",
        "steps": str(saved["step"]),
        "config": json.dumps(saved["config"]),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    save_adapter(target, projector, low_rank_names(saved["decoder"], scale), metadata)
    return metadata
