"""What we trained: the projector and low-rank updates of the language model, one fp16 safetensors file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from foveal.demo.errors import ModelSourceError

__all__ = ["SHIPPED_ADAPTER", "fold_feature_scale", "load_adapter", "save_adapter"]

SHIPPED_ADAPTER = Path(__file__).parent / "weights" / "adapter.safetensors"
PROJECTOR = "multi_modal_projector."
LANGUAGE = "language_model."


def fold_feature_scale(
    projector: dict[str, torch.Tensor], mean: torch.Tensor, deviation: torch.Tensor
) -> dict[str, torch.Tensor]:
    """linear_1 over standardised features -> linear_1 over raw features: W (x - m) / d + b = (W / d) x + (b - W m / d)."""
    weight = projector["linear_1.weight"] / deviation
    return projector | {
        "linear_1.weight": weight,
        "linear_1.bias": projector["linear_1.bias"] - weight @ mean,
    }


def save_adapter(
    path: Path, projector: dict[str, torch.Tensor], low_rank: dict[str, torch.Tensor], metadata: dict[str, str]
) -> None:
    """Writes fp16. Raises ModelSourceError when a value leaves fp16's range."""
    tensors = {PROJECTOR + name: value for name, value in projector.items()}
    tensors |= {LANGUAGE + name: value for name, value in low_rank.items()}
    halves = {name: value.detach().half().contiguous() for name, value in tensors.items()}
    broken = [name for name, value in halves.items() if not value.isfinite().all()]
    if broken:
        raise ModelSourceError(f"{len(broken)} adapter tensors do not fit into fp16 (first: {broken[0]})")
    save_file(halves, path, metadata=metadata)
    path.chmod(0o644)  # safetensors writes files that only their owner can read


def load_adapter(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(projector state, full-size weight updates by parameter name), in fp32."""
    if not path.is_file():
        raise ModelSourceError(f"the adapter {path} is missing; reinstall Foveal or train one (docs/demo-model.md)")
    tensors = {name: value.float() for name, value in load_file(path).items()}
    projector = {k.removeprefix(PROJECTOR): v for k, v in tensors.items() if k.startswith(PROJECTOR)}
    updates = {}
    for name, down in tensors.items():
        if name.endswith(".lora_A"):
            module = name.removesuffix(".lora_A")
            up = tensors[module + ".lora_B"]
            updates[module.removeprefix(LANGUAGE) + ".weight"] = up @ down
    return projector, updates
