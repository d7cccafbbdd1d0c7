"""A part of a model's head: the logits of some tokens only."""

from __future__ import annotations

import torch

from foveal.kernels.native.linear import NativeEmbedding, NativeLinear
from foveal.models.linears import DenseLinear, PackedLinear
from foveal.models.weight_packer import WeightPacker

__all__ = ["cut_head"]


def cut_head(head: PackedLinear, module: torch.nn.Module, token_ids: torch.Tensor) -> PackedLinear | None:
    """[T, hidden] -> [T, n] over rows `token_ids` [n] of `head`, packed as `head` is; None if it cannot be cut.

    `module` is the transformers head whose weight `head` holds; it may have given that up.
    """
    if type(module) is not torch.nn.Linear or module.bias is not None:
        return None
    if isinstance(head, NativeLinear):
        if head.matrix.kind == "int8":
            # Codes of a row and its scale survive this: the largest code is the scale's definition.
            return _pack(NativeEmbedding(head.matrix)(token_ids), "int8")
        if module.weight.numel():
            return _pack(module.weight.detach().index_select(0, token_ids), "none")
        return None
    return DenseLinear(module.weight.detach().index_select(0, token_ids).contiguous())


def _pack(rows: torch.Tensor, mode: str) -> NativeLinear:
    linear = torch.nn.Linear(rows.shape[1], rows.shape[0], bias=False)
    linear.weight = torch.nn.Parameter(rows, requires_grad=False)
    packer = WeightPacker("int8" if mode == "int8" else "none", {})
    return NativeLinear(packer.pack([linear], head=True))
