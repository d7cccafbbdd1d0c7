"""Embedding table and head on the native kernels, in one copy where the model ties them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from foveal.kernels.native.linear import NativeEmbedding, NativeLinear
from foveal.models.weight_packer import WeightPacker

__all__ = ["pack_vocabulary"]


def pack_vocabulary(
    model: PreTrainedModel, packer: WeightPacker
) -> tuple[Callable[[torch.Tensor], torch.Tensor], NativeLinear]:
    """Embedding and head of `model`. An int8 head whose weight is the table's serves as both; the table is given up."""
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head.weight is table.weight
    matrix = packer.pack([head], sensitive=True)  # its rows are the embedding table's too
    plain = type(table) is torch.nn.Embedding
    if not (tied and plain and matrix.kind == "int8"):
        return table, NativeLinear(matrix)
    table.weight = head.weight = torch.nn.Parameter(torch.empty(0), requires_grad=False)
    return NativeEmbedding(matrix), NativeLinear(matrix)
