"""One quantised weight as a checkpoint holds it: what every reader of a layout produces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from foveal.kernels.quantisation.affine import QuantisedWeight
from foveal.kernels.quantisation.scheme import LinearScheme
from foveal.models.quantised.input_rounding import StaticInput

__all__ = ["StoredWeight"]


@dataclass(frozen=True)
class StoredWeight:
    """Tensors of a checkpoint that together are the weight `<prefix>.weight` [out, in]."""

    prefix: str
    """Name of the module in the checkpoint."""
    scheme: LinearScheme
    tensors: frozenset[str]
    """Every tensor that this weight takes up, so that whatever is left over is noticed."""
    read: Callable[[], QuantisedWeight]
    """Codes and scales, still packed in memory; raises ConfigurationError for inputs out of order (`read_dense` serves)."""
    read_dense: Callable[[], torch.Tensor] | None = None
    """float32 [out, in], for weights whose groups are no parts of a row (g_idx; NF4 blocks that cross rows)."""
    read_input: Callable[[], StaticInput] | None = None
    """The calibrated range of the input; static schemes only."""

    def dequantise(self) -> torch.Tensor:
        """float32 [out, in]."""
        return self.read().dequantise() if self.read_dense is None else self.read_dense()
