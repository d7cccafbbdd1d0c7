"""compressed-tensors: pack-quantized, int-quantized, float-quantized, and mixtures of them."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import torch

from foveal.core.errors import ModelLoadError
from foveal.kernels.quantisation.affine import QuantisedWeight
from foveal.kernels.quantisation.packing import unpack_along_input, unpack_along_output
from foveal.kernels.quantisation.scheme import ActivationScheme, LinearScheme, WeightScheme
from foveal.models.quantised.config_groups import find_group, parse_groups
from foveal.models.quantised.input_rounding import StaticInput
from foveal.models.quantised.readers.base import QuantisedCheckpoint
from foveal.models.quantised.stored_weight import StoredWeight
from foveal.models.quantised.tensor_files import TensorFiles

__all__ = ["read_compressed_tensors"]

_PARTS = ("weight_packed", "weight_shape", "weight", "weight_scale", "weight_zero_point", "weight_g_idx")
_INPUT_PARTS = ("input_scale", "input_zero_point")


def read_compressed_tensors(checkpoint: QuantisedCheckpoint) -> list[StoredWeight]:
    """See CheckpointReader."""
    groups = parse_groups(checkpoint.config)
    weights: dict[str, StoredWeight] = {}
    twins: dict[str, frozenset[str]] = {}
    for prefix in checkpoint.prefixes("weight_scale"):
        module, name = checkpoint.module(prefix), checkpoint.names.module_of(prefix)
        if not any(f"{prefix}.{part}" in checkpoint.files for part in ("weight", "weight_packed")):
            # The scale of a head whose weight is the embedding table's.
            twins[checkpoint.twin(name)] = frozenset(_names(checkpoint.files, prefix, _PARTS))
            continue
        class_name = "Linear" if isinstance(module, torch.nn.Linear) else type(module).__name__
        weights[name] = _stored(checkpoint, prefix, find_group(groups, (name, prefix), class_name).scheme)
    return [replace(weight, tensors=weight.tensors | twins.get(name, frozenset())) for name, weight in weights.items()]


def _stored(checkpoint: QuantisedCheckpoint, prefix: str, scheme: LinearScheme) -> StoredWeight:
    files, shape = checkpoint.files, checkpoint.weight_shape(prefix)
    _check_scale(prefix, files.shape(f"{prefix}.weight_scale"), shape, scheme.weight)
    static = scheme.activation is not None and not scheme.activation.dynamic
    tensors = frozenset(_names(files, prefix, _PARTS + _INPUT_PARTS * static))
    return StoredWeight(
        prefix=prefix,
        scheme=scheme,
        tensors=tensors,
        read=partial(_read, files, prefix, shape, scheme.weight),
        read_dense=partial(_read_ordered, files, prefix, shape, scheme.weight)
        if f"{prefix}.weight_g_idx" in tensors
        else None,
        read_input=partial(_read_input, files, prefix, scheme.activation) if static else None,
    )


def _names(files: TensorFiles, prefix: str, parts: tuple[str, ...]) -> list[str]:
    return [f"{prefix}.{part}" for part in parts if f"{prefix}.{part}" in files]


def _read(files: TensorFiles, prefix: str, shape: tuple[int, int], scheme: WeightScheme) -> QuantisedWeight:
    packed = f"{prefix}.weight_packed" in files
    if packed:
        codes = unpack_along_input(
            files.read(f"{prefix}.weight_packed"), scheme.bits, shape[1], symmetric=scheme.symmetric
        )
    else:
        codes = files.read(f"{prefix}.weight")
        if not scheme.symmetric:
            codes = (codes.to(torch.int16) + 2 ** (scheme.bits - 1)).to(torch.uint8)
    if tuple(codes.shape) != shape:
        raise ModelLoadError(
            f"{prefix} is stored as {tuple(codes.shape)}, but is {shape} in the model of its config.json"
        )
    scales = (1, 1) if scheme.per_tensor else (shape[0], scheme.groups_of(shape[1]))
    scale = files.read(f"{prefix}.weight_scale").float().reshape(scales)
    if scheme.symmetric:
        return QuantisedWeight(codes, scale, None, scheme)
    zero_point = files.read(f"{prefix}.weight_zero_point")
    if zero_point.dtype == torch.int32:  # packed; otherwise one signed byte each
        zero_point = unpack_along_output(zero_point, scheme.bits, scales[0])
    else:
        zero_point = zero_point.to(torch.int32) + 2 ** (scheme.bits - 1)
    return QuantisedWeight(codes, scale, zero_point.reshape(scales), scheme)


def _read_ordered(files: TensorFiles, prefix: str, shape: tuple[int, int], scheme: WeightScheme) -> torch.Tensor:
    """Inputs in the order of their importance to GPTQ: each names its group."""
    weight, group_of = _read(files, prefix, shape, scheme), files.read(f"{prefix}.weight_g_idx").long()
    codes = weight.codes.float()
    if weight.zero_point is not None:
        codes = codes - weight.zero_point[:, group_of]
    return codes * weight.scale[:, group_of]


def _read_input(files: TensorFiles, prefix: str, scheme: ActivationScheme) -> StaticInput:
    scale = files.read(f"{prefix}.input_scale").float().reshape(1)
    if scheme.symmetric:
        # Older versions store a zero point of zero there.
        if f"{prefix}.input_zero_point" in files and files.read(f"{prefix}.input_zero_point").any():
            raise ModelLoadError(f"{prefix} has a zero point for its input, which its config group calls symmetric")
        return StaticInput(scale)
    zero_point = files.read(f"{prefix}.input_zero_point").to(torch.int32).reshape(1) + 2 ** (scheme.bits - 1)
    return StaticInput(scale, zero_point)


def _check_scale(prefix: str, found: tuple[int, ...], shape: tuple[int, int], scheme: WeightScheme) -> None:
    if scheme.group is not None and shape[1] % scheme.group:
        raise ModelLoadError(
            f"groups of {scheme.group} do not divide the input {shape[1]} of {prefix}. Convert it again."
        )
    expected = 1 if scheme.per_tensor else shape[0] * scheme.groups_of(shape[1])
    if math.prod(found) != expected:
        raise ModelLoadError(
            f"{prefix}.weight_scale is {found}; a weight of {shape} in {scheme.name} has {expected} scales. "
            "Download or convert the checkpoint again."
        )
