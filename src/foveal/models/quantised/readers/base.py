"""What a reader of one layout gets and gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from foveal.core.errors import ModelLoadError
from foveal.models.quantised.stored_weight import StoredWeight
from foveal.models.quantised.tensor_files import TensorFiles
from foveal.models.quantised.tensor_names import TensorNames

__all__ = ["CheckpointReader", "QuantisedCheckpoint"]


@dataclass(frozen=True)
class QuantisedCheckpoint:
    """A checkpoint as its files describe it, and the model (without weights) that it belongs to."""

    files: TensorFiles
    config: Mapping[str, Any]
    """`quantization_config` of config.json."""
    skeleton: PreTrainedModel
    names: TensorNames

    def module(self, prefix: str) -> torch.nn.Module:
        """The module whose weight is stored under `prefix`. Raises ModelLoadError if the model has none."""
        name = self.names.module_of(prefix)
        if f"{name}.weight" not in self.names:
            raise ModelLoadError(
                f"{self.files.directory} stores a quantised weight {prefix}, which the model of its config.json lacks. "
                "Download the checkpoint again."
            )
        return self.skeleton.get_submodule(name)

    def weight_shape(self, prefix: str) -> tuple[int, int]:
        """[out, in] as the model has it. Raises ModelLoadError for what is no matrix."""
        weight = self.module(prefix).weight
        if weight.dim() != 2:
            raise ModelLoadError(f"{prefix} is stored quantised, but is no matrix in the model of its config.json")
        return tuple(weight.shape)

    def twin(self, module: str) -> str:
        """The module whose weight `module` shares (names of the model); "" if it shares none."""
        for one, other in (getattr(self.skeleton, "all_tied_weights_keys", None) or {}).items():
            names = [one.removesuffix(".weight"), other.removesuffix(".weight")]
            if module in names:
                return names[1 - names.index(module)]
        return ""

    def prefixes(self, suffix: str) -> list[str]:
        """Names of modules that store a tensor `<prefix>.<suffix>`, sorted."""
        return [name.removesuffix(f".{suffix}") for name in self.files if name.endswith(f".{suffix}")]


CheckpointReader = Callable[[QuantisedCheckpoint], list[StoredWeight]]
"""Find every quantised weight; reads headers, not weights. Raises ModelLoadError for what it cannot run."""
