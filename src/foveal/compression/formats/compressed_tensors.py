"""compressed-tensors 0.20: the default, read by vLLM and transformers, one scheme per group of modules."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch

from foveal.compression.formats.base import FormatRequest, StoredItem, not_expressible
from foveal.compression.formats.scale_storage import stored_scale
from foveal.compression.formats.targets import match_expressions
from foveal.kernels.quantisation.affine import QuantisedWeight
from foveal.kernels.quantisation.packing import pack_along_input, pack_along_output
from foveal.kernels.quantisation.scheme import ActivationScheme, LinearScheme, WeightScheme

__all__ = ["CompressedTensorsFormat"]

_VERSION = "0.20.0"
_WITH_SCALE = ("weight_scale", "weight_zero_point")
_REMEDY = "Choose an integer or fp8 scheme for it, keep it, or use --format bnb-nf4 for NF4."


class CompressedTensorsFormat:
    """Weight-only integers are packed, W8A8 stored as int8, fp8 as float8; schemes may differ by module."""

    name = "compressed-tensors"

    def refuse(self, request: FormatRequest) -> None:
        limit = "integers of 2 to 8 bits and fp8, with integer inputs beside integer weights"
        for module, scheme in request.schemes.items():
            if scheme.weight.kind == "nf4" or (scheme.weight.kind == "float" and scheme.activation is not None):
                raise not_expressible(self.name, module, scheme.name, limit, _REMEDY)
            if module in request.embeddings and scheme.activation is not None:
                found = f"{scheme.name}, but it is an embedding table"
                raise not_expressible(self.name, module, found, "tables without rounded inputs", "Use int8 or int4.")

    def refuse_weight(self, module: str, weight: QuantisedWeight) -> None:
        """Every weight of these schemes can be held: scales are stored in the type that they fit."""

    def tensors(self, item: StoredItem) -> dict[str, torch.Tensor]:
        weight, scheme = item.weight, item.scheme
        bits, packed = scheme.weight.bits, _layout(scheme, item.embedding) == "pack-quantized"
        stored = {"weight_scale": stored_scale(_flat_if_per_tensor(weight.scale, scheme.weight))}
        if packed:
            stored["weight_packed"] = pack_along_input(weight.codes, bits)
            stored["weight_shape"] = torch.tensor(weight.shape, dtype=torch.int64)
        else:
            stored["weight"] = _signed(weight.codes, bits) if weight.zero_point is not None else weight.codes
        if weight.zero_point is not None:
            # One zero point for the whole tensor is never packed.
            stored["weight_zero_point"] = (
                pack_along_output(weight.zero_point, bits)
                if packed and not scheme.weight.per_tensor
                else _flat_if_per_tensor(_signed(weight.zero_point, bits), scheme.weight)
            )
        if item.static_input is not None:
            stored["input_scale"] = item.static_input.scale.float().reshape(1)
            if item.static_input.zero_point is not None and scheme.activation is not None:
                stored["input_zero_point"] = _signed(item.static_input.zero_point, scheme.activation.bits).reshape(1)
        return stored

    def twin_tensors(self, item: StoredItem) -> dict[str, torch.Tensor]:
        """Scales and zero points, so that transformers dequantises the head of a tied pair as it does the table."""
        return {
            suffix: tensor for suffix, tensor in self.tensors(item).items() if suffix in _WITH_SCALE and item.embedding
        }

    def config(self, request: FormatRequest) -> dict[str, Any]:
        groups: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        for module, scheme in request.schemes.items():
            groups[scheme.name, _layout(scheme, module in request.embeddings)].append(module)
        targets = match_expressions(
            {" ".join(key): modules for key, modules in sorted(groups.items())}, [*request.kept, *request.others]
        )
        layouts = {layout for _, layout in groups}
        return {
            "quant_method": "compressed-tensors",
            "version": _VERSION,
            "format": layouts.pop() if len(layouts) == 1 else "mixed-precision",
            "quantization_status": "compressed",
            "global_compression_ratio": None,
            "kv_cache_scheme": None,
            "ignore": match_expressions({"kept": request.kept}, [*request.schemes, *request.others])["kept"],
            "config_groups": {
                f"group_{number}": _group(request.schemes[groups[key][0]], key[1], targets[" ".join(key)])
                for number, key in enumerate(sorted(groups))
            },
        }


def _layout(scheme: LinearScheme, embedding: bool) -> str:
    if scheme.weight.kind == "float":
        return "float-quantized"
    # transformers' tables must have a tensor called `weight`; so must W8A8 linears in vLLM.
    unpacked = scheme.weight.bits == 8 and (embedding or scheme.activation is not None)
    return "int-quantized" if unpacked else "pack-quantized"


def _group(scheme: LinearScheme, layout: str, targets: list[str]) -> dict[str, Any]:
    return {
        "targets": targets,
        "format": layout,
        "weights": _weights(scheme.weight),
        "input_activations": None if scheme.activation is None else _inputs(scheme.activation),
        "output_activations": None,
    }


def _weights(scheme: WeightScheme) -> dict[str, Any]:
    strategy = "tensor" if scheme.per_tensor else "channel" if scheme.group is None else "group"
    return {
        "num_bits": scheme.bits,
        "type": scheme.kind,
        "symmetric": scheme.symmetric,
        "strategy": strategy,
        "group_size": scheme.group,
        "dynamic": False,
    }


def _inputs(scheme: ActivationScheme) -> dict[str, Any]:
    return {
        "num_bits": scheme.bits,
        "type": "int",
        "symmetric": scheme.symmetric,
        "strategy": "token" if scheme.dynamic else "tensor",
        "dynamic": scheme.dynamic,
    }


def _signed(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Unsigned codes as int8 around zero, the way compressed-tensors counts."""
    return (codes.to(torch.int16) - 2 ** (bits - 1)).to(torch.int8)


def _flat_if_per_tensor(values: torch.Tensor, scheme: WeightScheme) -> torch.Tensor:
    return values.reshape(1) if scheme.per_tensor else values
