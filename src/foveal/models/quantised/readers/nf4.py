"""bitsandbytes' NF4 layout."""

from __future__ import annotations

import json

import torch

from foveal.core.errors import ModelLoadError
from foveal.kernels.quantisation.bnb_layout import bnb_dequantise, from_bnb
from foveal.kernels.quantisation.scheme import LinearScheme, WeightScheme
from foveal.models.quantised.readers.base import QuantisedCheckpoint
from foveal.models.quantised.stored_weight import StoredWeight
from foveal.models.quantised.tensor_files import TensorFiles

__all__ = ["read_nf4"]

_STATE = "weight.quant_state.bitsandbytes__nf4"
_PARTS = ("", "absmax", "quant_map", "nested_absmax", "nested_quant_map", "quant_state.bitsandbytes__nf4")


def read_nf4(checkpoint: QuantisedCheckpoint) -> list[StoredWeight]:
    """See CheckpointReader."""
    quant_type = checkpoint.config.get("bnb_4bit_quant_type", "nf4")
    if not checkpoint.config.get("load_in_4bit") or quant_type != "nf4":
        raise ModelLoadError(
            "this bitsandbytes checkpoint is not NF4 (load_in_4bit with bnb_4bit_quant_type nf4); only NF4 is read. "
            "Quantise the original again."
        )
    return [_stored(checkpoint, prefix) for prefix in checkpoint.prefixes(_STATE)]


def _stored(checkpoint: QuantisedCheckpoint, prefix: str) -> StoredWeight:
    files, shape = checkpoint.files, checkpoint.weight_shape(prefix)
    try:
        state = json.loads(bytes(files.read(f"{prefix}.{_STATE}").tolist()))
        stored_shape, block = tuple(state["shape"]), int(state["blocksize"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelLoadError(f"{prefix}.{_STATE} cannot be read ({error!r}). Download the checkpoint again.") from error
    if stored_shape != shape:
        raise ModelLoadError(f"{prefix} is stored as {stored_shape}, but is {shape} in the model of its config.json")
    names = {part: f"{prefix}.weight.{part}".removesuffix(".") for part in _PARTS}
    scheme = WeightScheme("nf4", 4, True, block, names["nested_absmax"] in files)
    return StoredWeight(
        prefix=prefix,
        scheme=LinearScheme(scheme),
        tensors=frozenset(name for name in names.values() if name in files),
        read=lambda: from_bnb(_tensors(files, names)),
        # bitsandbytes counts its blocks over the flattened weight: they may cross rows.
        read_dense=(lambda: bnb_dequantise(_tensors(files, names))) if block > 0 and shape[1] % block else None,
    )


def _tensors(files: TensorFiles, names: dict[str, str]) -> dict[str, torch.Tensor]:
    return {part: files.read(name) for part, name in names.items() if name in files}
