"""What one tensor is called in a checkpoint and in the model that transformers builds from it.

The two differ: `language_model.model.layers.0.mlp.up_proj.weight` in a LLaVA checkpoint is
`model.language_model.layers.0.mlp.up_proj.weight` in the model. transformers holds the rules; this applies them.
"""

from __future__ import annotations

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from foveal.core.errors import ModelLoadError
from foveal.models.family import Family

__all__ = ["TensorNames", "build_skeleton"]


def build_skeleton(config: PreTrainedConfig, family: Family) -> PreTrainedModel:
    """The model of `config` without weights (on the meta device): names, shapes and types of its modules."""
    with torch.device("meta"):
        return getattr(transformers, family.auto_class).from_config(config)


class TensorNames:
    """Names in checkpoints -> names in the model `skeleton`."""

    def __init__(self, skeleton: PreTrainedModel) -> None:
        rules = get_model_conversion_mapping(skeleton)
        self._renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
        self._converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
        self._prefix = skeleton.base_model_prefix
        self._expected = skeleton.state_dict()

    def in_model(self, stored: str) -> str:
        """The model's name of the checkpoint's tensor `stored`; a name that no rule knows comes back unchanged.

        Raises ModelLoadError for a tensor that transformers splits or merges while loading: it has no one name.
        """
        renamed, merged = rename_source_key(stored, self._renamings, self._converters, self._prefix, self._expected)
        if merged is not None:
            raise ModelLoadError(
                f"{stored} is split or merged with other tensors when transformers loads it, so it cannot be quantised "
                "where it is stored. Load the checkpoint in transformers and save it again."
            )
        if renamed not in self._expected and stored in self._expected:
            return stored
        return renamed

    def module_of(self, stored_prefix: str) -> str:
        """The model's name of the module whose weight is stored as `<stored_prefix>.weight`."""
        return self.in_model(f"{stored_prefix}.weight").removesuffix(".weight")

    def __contains__(self, name: str) -> bool:
        """True if the model has a tensor of this (the model's) name."""
        return name in self._expected
