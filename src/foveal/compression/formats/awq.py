"""AWQ layout, GEMM version (AutoAWQ, vLLM): 4 bits, one group size for the whole checkpoint."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch

from foveal.compression.formats.base import FormatRequest, StoredItem, not_expressible
from foveal.compression.formats.single_scheme import refuse_mixed, refuse_undivided, refuse_wide_scales
from foveal.kernels.quantisation.affine import QuantisedWeight
from foveal.kernels.quantisation.layouts import to_awq

__all__ = ["AwqFormat"]

_LIMIT = "4-bit integer weights, per group, with inputs as they are"
_REMEDY = "Keep it (16 bits), give it int4 with groups, or use --format compressed-tensors."


class AwqFormat:
    """Symmetric weights are stored too: their zero point is 8."""

    name = "awq"

    def refuse(self, request: FormatRequest) -> None:
        for module, scheme in request.schemes.items():
            weight = scheme.weight
            if weight.kind != "int" or weight.bits != 4 or weight.per_tensor or scheme.activation is not None:
                raise not_expressible(self.name, module, scheme.name, _LIMIT, _REMEDY)
            if module in request.embeddings:
                raise not_expressible(self.name, module, f"{scheme.name}, an embedding table", "linears only", _REMEDY)
        refuse_mixed(self.name, request)
        refuse_undivided(self.name, request, out_multiple=8)

    def refuse_weight(self, module: str, weight: QuantisedWeight) -> None:
        refuse_wide_scales(self.name, module, weight)

    def tensors(self, item: StoredItem) -> dict[str, torch.Tensor]:
        packed = to_awq(item.weight)
        return {field.name: getattr(packed, field.name) for field in fields(packed)}

    def twin_tensors(self, item: StoredItem) -> dict[str, torch.Tensor]:
        return {}

    def config(self, request: FormatRequest) -> dict[str, Any]:
        weight = next(iter(request.schemes.values())).weight
        return {
            "quant_method": "awq",
            "version": "gemm",
            "bits": 4,
            "group_size": -1 if weight.group is None else weight.group,
            "zero_point": True,
            "modules_to_not_convert": sorted(request.kept),
        }
