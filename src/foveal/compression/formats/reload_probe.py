"""A prompt with the logits that a compressed model must give for it, on disk for another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

__all__ = ["ReloadProbe"]

_INPUT = "inputs."
_LOGITS = "logits"


@dataclass(frozen=True)
class ReloadProbe:
    """Use a prompt with a picture: otherwise nobody looks at the tower."""

    inputs: Mapping[str, torch.Tensor]
    """Arguments of the transformers model: input_ids, pixel_values and the like, on the CPU."""
    logits: torch.Tensor
    """float32 [batch, tokens, vocabulary]."""

    @classmethod
    @torch.inference_mode()
    def of(cls, model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> ReloadProbe:
        """What `model` answers; run it in float32, as the check does."""
        return cls(inputs, model(**inputs).logits.float())

    def save(self, path: Path) -> None:
        """Raises OSError."""
        tensors = {f"{_INPUT}{name}": tensor.contiguous().clone() for name, tensor in self.inputs.items()}
        save_file(tensors | {_LOGITS: self.logits.contiguous().clone()}, path)

    @classmethod
    def load(cls, path: Path) -> ReloadProbe:
        tensors = load_file(path)
        logits = tensors.pop(_LOGITS)
        return cls({name.removeprefix(_INPUT): tensor for name, tensor in tensors.items()}, logits)
