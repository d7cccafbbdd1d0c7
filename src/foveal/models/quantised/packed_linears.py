"""PackedLinears of linears that round their input: the rounding runs once for all that share it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from foveal.models.linears import DenseLinear, PackedLinear
from foveal.models.quantised.input_rounding import InputRounding
from foveal.models.quantised.rounded_linear import RoundedInputLinear

__all__ = ["RoundedPackedLinear", "SeparateLinears", "adopt_linears"]


class RoundedPackedLinear:
    """A PackedLinear behind one rounding of its input."""

    def __init__(self, product: PackedLinear, rounding: InputRounding) -> None:
        self.product = product
        self.rounding = rounding
        self.in_features, self.out_features = product.in_features, product.out_features

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.product(self.rounding(x))


class SeparateLinears:
    """Projections that share an input but not its rounding, one after another."""

    def __init__(self, parts: Sequence[PackedLinear]) -> None:
        self.parts = parts
        self.in_features = parts[0].in_features
        self.out_features = sum(part.out_features for part in parts)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([part(x) for part in self.parts], -1)


def adopt_linears(modules: Sequence[torch.nn.Linear]) -> PackedLinear:
    """The product of `modules`, which share an input: packed as DenseLinear.adopt does, and with their rounding."""
    roundings = [module.input_rounding if isinstance(module, RoundedInputLinear) else None for module in modules]
    first = roundings[0]
    if all(rounding is None for rounding in roundings):
        return DenseLinear.adopt(modules)
    if first is not None and all(other is not None and first.same_as(other) for other in roundings):
        return RoundedPackedLinear(DenseLinear.adopt(modules), first)
    return SeparateLinears([adopt_linears([module]) for module in modules])
