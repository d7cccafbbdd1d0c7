"""GPTQ layout (AutoGPTQ, GPTQModel, vLLM): one bit width and group size for the whole checkpoint.

Symmetric weights are written in version 1, which every reader takes. Asymmetric ones need version 2: version 1 stores zero
points less one, has no value for 0, and GPTQModel refuses it for them.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch

from foveal.compression.formats.base import FormatRequest, StoredItem, not_expressible
from foveal.compression.formats.single_scheme import refuse_mixed, refuse_undivided, refuse_wide_scales
from foveal.compression.formats.targets import match_expressions
from foveal.kernels.quantisation.affine import QuantisedWeight
from foveal.kernels.quantisation.layouts import to_gptq
from foveal.kernels.quantisation.scheme import WeightScheme

__all__ = ["GptqFormat"]

_LIMIT = "integer weights of 4 or 8 bits (2 too), per group or channel, with inputs as they are"
_REMEDY = "Keep it (16 bits), give it int4 or int8, or use --format compressed-tensors."


class GptqFormat:
    """Kept linears are named in `dynamic`, as GPTQModel and vLLM read it."""

    name = "gptq"

    def refuse(self, request: FormatRequest) -> None:
        for module, scheme in request.schemes.items():
            weight = scheme.weight
            fits = weight.kind == "int" and weight.bits in (2, 4, 8) and not weight.per_tensor
            if not fits or scheme.activation is not None:
                raise not_expressible(self.name, module, scheme.name, _LIMIT, _REMEDY)
            if module in request.embeddings:
                raise not_expressible(self.name, module, f"{scheme.name}, an embedding table", "linears only", _REMEDY)
        refuse_mixed(self.name, request)
        multiple = 32 // next(iter(request.schemes.values())).weight.bits
        refuse_undivided(self.name, request, in_multiple=multiple, out_multiple=multiple)

    def refuse_weight(self, module: str, weight: QuantisedWeight) -> None:
        refuse_wide_scales(self.name, module, weight)

    def tensors(self, item: StoredItem) -> dict[str, torch.Tensor]:
        packed = to_gptq(item.weight, version=_version(item.weight.scheme))
        return {field.name: getattr(packed, field.name) for field in fields(packed)}

    def twin_tensors(self, item: StoredItem) -> dict[str, torch.Tensor]:
        return {}

    def config(self, request: FormatRequest) -> dict[str, Any]:
        weight = next(iter(request.schemes.values())).weight
        kept = match_expressions({"kept": request.kept}, [*request.schemes, *request.others])["kept"]
        return {
            "quant_method": "gptq",
            "checkpoint_format": "gptq" if _version(weight) == 1 else "gptq_v2",
            "bits": weight.bits,
            "group_size": -1 if weight.group is None else weight.group,
            "sym": weight.symmetric,
            "desc_act": False,
            "lm_head": any(name.endswith("lm_head") for name in request.schemes),
            "dynamic": {f"-:{expression.removeprefix('re:')}": {} for expression in kept},
        }


def _version(scheme: WeightScheme) -> int:
    return 1 if scheme.symmetric else 2
