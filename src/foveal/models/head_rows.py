"""A part of a model's head: the logits of some tokens only."""

from __future__ import annotations

import torch

from foveal.kernels.native.linear import NativeEmbedding, NativeLinear
from foveal.kernels.native.packed_matrix import pack_dense, pack_quantised
from foveal.kernels.quantisation.affine import find_scales, quantise
from foveal.kernels.quantisation.scheme import WeightScheme
from foveal.models.linears import DenseLinear, PackedLinear

__all__ = ["cut_head"]

_SIXTEEN_BITS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def cut_head(head: PackedLinear, module: torch.nn.Module, token_ids: torch.Tensor) -> PackedLinear | None:
    """[T, hidden] -> [T, n] over rows `token_ids` [n] of `head`, packed as `head` is; None if it cannot be cut.

    `module` is the transformers head whose weight `head` holds; an int8 head has taken that over.
    """
    if type(module) is not torch.nn.Linear or module.bias is not None:
        return None
    if isinstance(head, NativeLinear) and head.matrix.kind == "int8":
        # Codes and scales come out as they were: a scale is the largest value of its group over the largest code.
        scheme, rows = WeightScheme("int", 8, True, head.matrix.group), NativeEmbedding(head.matrix)(token_ids)
        scale, zero_point = find_scales(rows, scheme, scale_dtype=torch.float32)
        return NativeLinear(pack_quantised(quantise(rows, scheme, scale, zero_point)))
    if not module.weight.numel():
        return None
    rows = module.weight.detach().index_select(0, token_ids).contiguous()
    if not isinstance(head, NativeLinear):
        return DenseLinear(rows)
    return NativeLinear(pack_dense(rows.to(_SIXTEEN_BITS.get(head.matrix.kind, torch.float32))))
