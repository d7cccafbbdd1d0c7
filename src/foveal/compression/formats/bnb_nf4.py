"""bitsandbytes' NF4 layout: packed weight, block maxima and look-up tables beside it."""

from __future__ import annotations

from typing import Any

import torch

from foveal.compression.formats.base import FormatRequest, StoredItem, not_expressible
from foveal.compression.formats.single_scheme import refuse_mixed
from foveal.kernels.quantisation.affine import QuantisedWeight
from foveal.kernels.quantisation.bnb_layout import to_bnb

__all__ = ["BnbNf4Format"]

_REMEDY = "Give it nf4 or keep it (16 bits), or use --format compressed-tensors."


class BnbNf4Format:
    """Every linear that is not named in `llm_int8_skip_modules` is NF4. Names there start at the loaded model's root:
    bitsandbytes skips nothing for a name without its `model.`."""

    name = "bnb-nf4"

    def refuse(self, request: FormatRequest) -> None:
        for module, scheme in request.schemes.items():
            if scheme.weight.kind != "nf4" or scheme.activation is not None:
                raise not_expressible(self.name, module, scheme.name, "NF4 weights, with inputs as they are", _REMEDY)
            if module in request.embeddings:
                raise not_expressible(self.name, module, f"{scheme.name}, an embedding table", "linears only", _REMEDY)
        refuse_mixed(self.name, request)

    def refuse_weight(self, module: str, weight: QuantisedWeight) -> None:
        """Every NF4 weight can be held."""

    def tensors(self, item: StoredItem) -> dict[str, torch.Tensor]:
        return {f"weight.{part}".removesuffix("."): tensor for part, tensor in to_bnb(item.weight).items()}

    def twin_tensors(self, item: StoredItem) -> dict[str, torch.Tensor]:
        return {}

    def config(self, request: FormatRequest) -> dict[str, Any]:
        weight = next(iter(request.schemes.values())).weight
        return {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "load_in_8bit": False,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": weight.double_quant,
            "bnb_4bit_compute_dtype": "float32",
            "bnb_4bit_quant_storage": "uint8",
            "llm_int8_skip_modules": sorted(request.kept),
        }
