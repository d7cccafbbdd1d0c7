"""Load a quantised checkpoint into the plain transformers model: weights dequantised one by one, inputs rounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from transformers import PreTrainedConfig, PreTrainedModel

from foveal.core.errors import ModelLoadError
from foveal.kernels.quantisation.scheme import LinearScheme
from foveal.models.family import Family
from foveal.models.quantised.input_rounding import InputRounding
from foveal.models.quantised.readers.base import QuantisedCheckpoint
from foveal.models.quantised.readers.registry import find_stored_weights
from foveal.models.quantised.stored_weight import StoredWeight
from foveal.models.quantised.tensor_files import TensorFiles
from foveal.models.quantised.tensor_names import TensorNames, build_skeleton

__all__ = ["QuantisedModel", "load_quantised"]


@dataclass(frozen=True)
class QuantisedModel:
    """A loaded model with what was quantised in it."""

    model: PreTrainedModel
    info: dict[str, Any]
    """transformers' account of missing, unexpected and mismatched tensors."""
    linears: Mapping[str, LinearScheme]
    """Module name -> scheme, sorted; of a tied pair both names."""
    roundings: Mapping[str, InputRounding]
    """Module name -> how its input is rounded. Not yet in place: see `round_inputs`."""
    stored: Mapping[str, StoredWeight]
    """Module name -> codes in the files, of a tied pair both names."""


def load_quantised(
    source: str | Path, config: PreTrainedConfig, family: Family, dtype: torch.dtype, **options: Any
) -> QuantisedModel:
    """Load the directory or hub id `source`, whose `config` carries a quantization_config; `options` are for
    `from_pretrained`. Weights become `dtype`.

    Raises ModelLoadError for layouts or tensors that cannot be read, SafetensorError for damaged files.
    """
    directory = Path(source)
    if not directory.exists():
        directory = Path(snapshot_download(str(source), allow_patterns=["*.safetensors", "*.json"]))
    values = config.quantization_config
    values = values if isinstance(values, dict) else values.to_dict()
    del config.quantization_config  # transformers would quantise by it
    skeleton = build_skeleton(config, family)
    checkpoint = QuantisedCheckpoint(TensorFiles(directory), values, skeleton, TensorNames(skeleton))
    weights = find_stored_weights(checkpoint)
    state = _lazy_state(checkpoint, weights)
    model, info = type(skeleton).from_pretrained(
        None, config=config, state_dict=state, dtype=dtype, output_loading_info=True, **options
    )
    _raise_failed_reads(state)
    if (directory / "generation_config.json").is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(directory)
    module_of = {weight.prefix: checkpoint.names.module_of(weight.prefix) for weight in weights}
    stored = {module_of[weight.prefix]: weight for weight in weights}
    schemes = {module_of[weight.prefix]: weight.scheme for weight in weights}
    schemes |= {twin: scheme for name, scheme in schemes.items() if (twin := checkpoint.twin(name))}
    return QuantisedModel(
        model,
        info,
        dict(sorted(schemes.items(), key=lambda item: item[0])),
        {
            module_of[weight.prefix]: InputRounding(
                weight.scheme.activation, None if weight.read_input is None else weight.read_input()
            )
            for weight in weights
            if weight.scheme.activation is not None
        },
        stored | {twin: weight for name, weight in stored.items() if (twin := checkpoint.twin(name))},
    )


class _LazyTensor:
    """A tensor that transformers reads as it reads a slice of a safetensors file: with `[...]`, when its turn comes."""

    def __init__(self, read: Any) -> None:
        self._read = read
        self.error: Exception | None = None

    def __getitem__(self, key: Any) -> torch.Tensor:
        try:
            return self._read()[key]
        except Exception as error:
            self.error = error  # transformers reports it as a missing tensor
            raise


def _lazy_state(checkpoint: QuantisedCheckpoint, weights: list[StoredWeight]) -> dict[str, _LazyTensor]:
    files = checkpoint.files
    state = {f"{weight.prefix}.weight": _LazyTensor(weight.dequantise) for weight in weights}
    used = frozenset().union(*(weight.tensors for weight in weights))
    for name in files:
        if name in used:
            continue
        _refuse_codes(files, name)
        state[name] = _LazyTensor(lambda name=name: files.read(name))
    return state


def _refuse_codes(files: TensorFiles, name: str) -> None:
    """Codes whose scale is gone would load as numbers a hundred times too large."""
    if name.endswith(".weight") and not files.dtype(name).startswith(("F16", "F32", "F64", "BF16")):
        raise ModelLoadError(
            f"{name} of {files.directory} is stored as {files.dtype(name)}, and what turns it into a weight is missing. "
            "Download or convert the checkpoint again."
        )


def _raise_failed_reads(state: Mapping[str, _LazyTensor]) -> None:
    for tensor in state.values():
        if tensor.error is not None:
            raise tensor.error
