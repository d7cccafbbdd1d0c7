"""GPTQ layout, versions 1 and 2: AutoGPTQ and GPTQModel."""

from __future__ import annotations

from functools import partial

import torch

from foveal.core.errors import ModelLoadError
from foveal.kernels.quantisation.layouts import GptqTensors, from_gptq, gptq_dequantise
from foveal.kernels.quantisation.scheme import LinearScheme, WeightScheme
from foveal.models.quantised.readers.base import QuantisedCheckpoint
from foveal.models.quantised.stored_weight import StoredWeight
from foveal.models.quantised.tensor_files import TensorFiles

__all__ = ["read_gptq"]

_PARTS = ("qweight", "qzeros", "scales", "g_idx")
_VERSIONS = {"gptq": 1, "gptq_v2": 2}


def read_gptq(checkpoint: QuantisedCheckpoint) -> list[StoredWeight]:
    """See CheckpointReader. Bits and groups come from the tensors: `dynamic` may set them for each module."""
    layout = checkpoint.config.get("checkpoint_format") or "gptq"
    if layout not in _VERSIONS:
        raise ModelLoadError(f"checkpoint_format is {layout}; GPTQ checkpoints are read as {', '.join(_VERSIONS)}.")
    return [_stored(checkpoint, prefix, _VERSIONS[layout]) for prefix in checkpoint.prefixes("qweight")]


def _stored(checkpoint: QuantisedCheckpoint, prefix: str, version: int) -> StoredWeight:
    files, (out_features, in_features) = checkpoint.files, checkpoint.weight_shape(prefix)
    rows, columns = files.shape(f"{prefix}.qweight")
    groups = files.shape(f"{prefix}.scales")[0]
    bits, rest = divmod(rows * 32, in_features)
    if columns != out_features or rest or bits not in range(2, 9) or groups < 1 or in_features % groups:
        raise ModelLoadError(
            f"{prefix}.qweight is {(rows, columns)} with {groups} groups, which is no GPTQ weight of "
            f"[{out_features}, {in_features}]. Download or convert the checkpoint again."
        )
    tensors = partial(_tensors, files, prefix, in_features, groups)
    # Whether zero points are all in the middle is only known from the tensor; `sym` of the config may lie.
    middle = 2 ** (bits - 1)
    stored_zero = middle - 1 if version == 1 else middle
    word = sum(stored_zero << shift for shift in range(0, 32, bits)) if 32 % bits == 0 else None
    words = files.read(f"{prefix}.qzeros").to(torch.int64) & 0xFFFFFFFF
    symmetric = word is not None and bool((words == word).all())
    scheme = WeightScheme("int", bits, symmetric, None if groups == 1 else in_features // groups)
    order = files.read(f"{prefix}.g_idx") if f"{prefix}.g_idx" in files else None
    in_order = order is None or torch.equal(order.long(), torch.arange(in_features) // (in_features // groups))
    return StoredWeight(
        prefix=prefix,
        scheme=LinearScheme(scheme),
        tensors=frozenset(f"{prefix}.{part}" for part in _PARTS if f"{prefix}.{part}" in files),
        read=lambda: from_gptq(tensors(), scheme, version=version),
        read_dense=None if in_order else lambda: gptq_dequantise(tensors(), bits, version=version),
    )


def _tensors(files: TensorFiles, prefix: str, in_features: int, groups: int) -> GptqTensors:
    order = torch.arange(in_features, dtype=torch.int32) // (in_features // groups)
    if f"{prefix}.g_idx" in files:
        order = files.read(f"{prefix}.g_idx")
    return GptqTensors(*(files.read(f"{prefix}.{part}") for part in _PARTS[:3]), order)
