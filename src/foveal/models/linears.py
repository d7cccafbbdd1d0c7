"""The one seam between the fused decoder and how a matrix is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F

__all__ = ["MAX_TRANSPOSED_ROWS", "MIN_TRANSPOSED_ROWS", "DenseLinear", "PackedLinear"]

# MKL's float32 product is slow for a few rows: with the weight on the left it is faster, the two transposed copies
# included. Outside these bounds the plain product wins. Measured by benchmarks/linear_layouts.py.
MIN_TRANSPOSED_ROWS = 4
MAX_TRANSPOSED_ROWS = 48


class PackedLinear(Protocol):
    """One matrix product of the decoder. Projections that share an input are one PackedLinear (q, k, v; gate, up):
    one call, and one decision about bits and method for the whole group."""

    in_features: int
    out_features: int

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[T, in_features] -> [T, out_features], bias included; the caller may write into the result."""


class DenseLinear:
    """Weights as torch keeps them: [out_features, in_features]."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self.weight = weight
        self.bias = bias
        self.out_features, self.in_features = weight.shape
        self._may_transpose = weight.device.type == "cpu" and weight.dtype == torch.float32

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.shape[0]
        if not self._may_transpose or rows < MIN_TRANSPOSED_ROWS or rows > MAX_TRANSPOSED_ROWS:
            return F.linear(x, self.weight, self.bias)
        product = torch.mm(self.weight, x.t().contiguous()).t().contiguous()
        return product if self.bias is None else product.add_(self.bias)

    @classmethod
    def adopt(cls, modules: Sequence[torch.nn.Linear]) -> DenseLinear:
        """Concatenate the outputs of `modules`, which keep working: their parameters become views of the packed ones.

        Peak memory is one group's weights; afterwards nothing is stored twice. Either all modules have a bias or none.
        """
        if len(modules) == 1:
            bias = modules[0].bias
            return cls(modules[0].weight.detach(), None if bias is None else bias.detach())
        packed = [_pack(modules, "weight")]
        packed.append(_pack(modules, "bias") if modules[0].bias is not None else None)
        return cls(*packed)


def _pack(modules: Sequence[torch.nn.Linear], name: str) -> torch.Tensor:
    parts = [getattr(module, name).detach() for module in modules]
    packed = torch.cat(parts)
    offset = 0
    for module, part in zip(modules, parts, strict=True):
        view = packed[offset : offset + len(part)]
        setattr(module, name, torch.nn.Parameter(view, requires_grad=False))
        offset += len(part)
    return packed
