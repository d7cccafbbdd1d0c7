"""A quantised checkpoint in transformers alone, with the package that its layout belongs to."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from foveal.core.errors import ModelLoadError
from foveal.models.family import Family
from foveal.models.loading import LoadedCheckpoint

__all__ = ["load_plain", "needs_dequantising", "switch_off_rounding", "unreadable_reason"]

_PACKAGES = {
    "awq": "gptqmodel",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed_tensors",
    "gptq": "gptqmodel",
}


def unreadable_reason(directory: Path, ours: LoadedCheckpoint) -> str | None:
    """Why transformers cannot read this checkpoint, or None if it should. `ours` is what our loader made of it."""
    config = _quantization_config(directory)
    package = _PACKAGES[config["quant_method"]]
    if find_spec(package) is None:
        return f"{package} is not installed"
    if config["quant_method"] != "compressed-tensors":
        return None
    tables = {
        name: scheme
        for name, scheme in ours.quantised_linears.items()
        if isinstance(ours.model.get_submodule(name), torch.nn.Embedding)
    }
    if needs_dequantising(directory) and (tables or len(config["config_groups"]) > 1):
        return "transformers 5.23 reads asymmetric weights only where every linear has the same scheme"
    for name, scheme in tables.items():
        if scheme.weight.bits != 8:
            return f"transformers 5.23 reads embedding tables of 8 bits only; {name} is {scheme.name}"
    return None


def needs_dequantising(directory: Path) -> bool:
    """True if transformers 5.23 loads the checkpoint with `dequantize=True` only: it has packed zero points."""
    groups = _quantization_config(directory).get("config_groups", {}).values()
    return any(group["format"] == "pack-quantized" and not group["weights"]["symmetric"] for group in groups)


def load_plain(directory: Path, family: Family, *, dequantise: bool) -> PreTrainedModel:
    """The model in float32 on the CPU. For `dequantise` see `needs_dequantising`; inputs are then not
    rounded. Raises ModelLoadError for missing, unexpected or wrongly shaped tensors."""
    options = {"quantization_config": transformers.CompressedTensorsConfig(dequantize=True)} if dequantise else {}
    try:
        model, info = getattr(transformers, family.auto_class).from_pretrained(
            directory, dtype=torch.float32, output_loading_info=True, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError, AttributeError) as error:
        raise ModelLoadError(f"transformers cannot load it: {' '.join(str(error).split())[:300]}") from error
    problems = {kind: sorted(map(str, names))[:5] for kind, names in info.items() if names}
    if problems:
        raise ModelLoadError(f"transformers does not place every tensor: {problems}")
    return model.eval()


def switch_off_rounding(model: PreTrainedModel) -> None:
    """Let compressed-tensors' linears take their input as it is."""
    for module in model.modules():
        if hasattr(module, "quantization_scheme"):
            module.quantization_enabled = False


def _quantization_config(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "config.json").read_text())["quantization_config"])
