"""compressed-tensors 0.20: the default, read by vLLM and transformers, one scheme per group of modules."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch

from foveal.compression.formats.base import FormatRequest, not_expressible
from foveal.compression.formats.scale_storage import stored_scale
from foveal.compression.formats.targets import match_expressions
from foveal.kernels.quantisation.affine import QuantisedWeight
from foveal.kernels.quantisation.packing import pack_along_input, pack_along_output
from foveal.kernels.quantisation.scheme import ActivationScheme, LinearScheme, WeightScheme
from foveal.models.quantised.input_rounding import StaticInput

__all__ = ["CompressedTensorsFormat"]

_VERSION = "0.20.0"
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

    def tensors(
        self, weight: QuantisedWeight, scheme: LinearScheme, static: StaticInput | None
    ) -> dict[str, torch.Tensor]:
        stored = {"weight_scale": stored_scale(_flat_if_per_tensor(weight.scale, scheme.weight))}
        bits, packed = scheme.weight.bits, _stored_as(scheme) == "pack-quantized"
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
        if static is not None:
            stored["input_scale"] = static.scale.float().reshape(1)
            if static.zero_point is not None and scheme.activation is not None:
                stored["input_zero_point"] = _signed(static.zero_point, scheme.activation.bits).reshape(1)
        return stored

    def config(self, request: FormatRequest) -> dict[str, Any]:
        modules_of: defaultdict[LinearScheme, list[str]] = defaultdict(list)
        for module, scheme in request.schemes.items():
            modules_of[scheme].append(module)
        schemes = sorted(modules_of, key=lambda scheme: scheme.name)
        targets = match_expressions({scheme.name: modules_of[scheme] for scheme in schemes}, request.kept)
        formats = {_stored_as(scheme) for scheme in schemes}
        return {
            "quant_method": "compressed-tensors",
            "version": _VERSION,
            "format": formats.pop() if len(formats) == 1 else "mixed-precision",
            "quantization_status": "compressed",
            "global_compression_ratio": None,
            "kv_cache_scheme": None,
            "ignore": match_expressions({"kept": request.kept}, request.schemes)["kept"],
            "config_groups": {
                f"group_{number}": {
                    "targets": targets[scheme.name],
                    "format": _stored_as(scheme),
                    "weights": _weights(scheme.weight),
                    "input_activations": None if scheme.activation is None else _inputs(scheme.activation),
                    "output_activations": None,
                }
                for number, scheme in enumerate(schemes)
            },
        }


def _stored_as(scheme: LinearScheme) -> str:
    if scheme.weight.kind == "float":
        return "float-quantized"
    return "int-quantized" if scheme.activation is not None and scheme.weight.bits == 8 else "pack-quantized"


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
