"""A model's modules and shapes, without its weights: what can be checked before hours are spent."""

from __future__ import annotations

from pathlib import Path

import transformers
from transformers import PreTrainedModel

from foveal.core.errors import ModelLoadError
from foveal.models.quantised.tensor_names import build_skeleton
from foveal.models.registry import family_of

__all__ = ["load_skeleton"]


def load_skeleton(directory: Path) -> PreTrainedModel:
    """On the meta device, with tied weights tied. Raises ModelLoadError."""
    try:
        config = transformers.AutoConfig.from_pretrained(directory)
        model = build_skeleton(config, family_of(config.model_type))
        model.tie_weights()
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelLoadError(f"config.json of {directory} cannot be used: {reason}. Check the checkpoint.") from error
    return model
