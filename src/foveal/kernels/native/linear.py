"""A native product as a PackedLinear, and rows of a quantised embedding table."""

from __future__ import annotations

import torch

from foveal.kernels.native.extension import require_native
from foveal.kernels.native.packed_matrix import NativeMatrix

__all__ = ["NativeEmbedding", "NativeLinear"]


class NativeLinear:
    """x W^T + bias. Inputs of quantised weights are rounded to int8 with one scale per 32 neighbours of a token."""

    def __init__(self, matrix: NativeMatrix) -> None:
        self.matrix = matrix
        self.in_features, self.out_features = matrix.in_features, matrix.out_features
        self._linear = require_native().linear

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [T, in_features] -> float32 [T, out_features]. A row's result does not depend on the other rows."""
        out = torch.empty((x.shape[0], self.out_features), dtype=torch.float32)
        self._linear(self.matrix.handle, x.contiguous().numpy(), out.numpy(), "store", torch.get_num_threads())
        return out


class NativeEmbedding:
    """Rows of an int8 matrix, which may be the tied head's."""

    def __init__(self, matrix: NativeMatrix) -> None:
        self.matrix = matrix
        self._padded = -(-matrix.in_features // 32) * 32
        self._gather = require_native().gather_rows

    def __call__(self, token_ids: torch.Tensor) -> torch.Tensor:
        """int64 [T] -> float32 [T, in_features]. Raises ValueError for an id outside the table."""
        out = torch.empty((len(token_ids), self._padded), dtype=torch.float32)
        self._gather(self.matrix.handle, token_ids.numpy(), out.numpy())
        return out[:, : self.matrix.in_features].contiguous()
