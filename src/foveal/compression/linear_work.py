"""One linear on its way through compression, judged always in the terms of the weight that it came with."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch

from foveal.compression.components import Component
from foveal.compression.input_statistics import InputStatistics
from foveal.compression.recipe import Rule
from foveal.kernels.quantisation.affine import QuantisedWeight
from foveal.kernels.quantisation.scheme import LinearScheme
from foveal.models.quantised.input_rounding import InputRounding, StaticInput

__all__ = ["LinearWork"]


@dataclass
class LinearWork:
    """`module.weight` is rows * original * columns once scales are folded in."""

    name: str
    component: Component
    module: torch.nn.Linear
    rule: Rule
    scheme: LinearScheme
    """The rule's, with a group size that divides the input."""
    statistics: InputStatistics | None
    notes: list[str] = field(default_factory=list)
    original: torch.Tensor = field(init=False)
    rows: torch.Tensor = field(init=False)
    columns: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.original = self.module.weight.detach().clone()
        self.rows = torch.ones(self.original.shape[0])
        self.columns = torch.ones(self.original.shape[1])

    @property
    def weight(self) -> torch.Tensor:
        return self.module.weight.detach()

    @cached_property
    def held_hessian(self) -> torch.Tensor:
        """Of the inputs before any scale."""
        assert self.statistics is not None
        return self.statistics.held_hessian.float()

    def loss(
        self,
        quantised: QuantisedWeight,
        static: StaticInput | None = None,
        *,
        rows: torch.Tensor | float | None = None,
        columns: torch.Tensor | float | None = None,
    ) -> float | None:
        """Mean squared error of the output on held-out inputs, as if no scale had been folded; None without inputs.

        `quantised` holds the weight times `rows` [out] and `columns` [in]; by default those folded in now. Where inputs
        are rounded too, their error counts, on the kept sample.
        """
        if self.statistics is None:
            return None
        rows = self.rows[:, None] if rows is None else rows
        columns = self.columns if columns is None else columns
        if self.scheme.activation is None:
            error = quantised.dequantise() / columns / rows - self.original
            return float(((error @ self.held_hessian) * error).sum()) / 2 / len(error)
        inputs = self.statistics.sampled(held_out=True)
        rounding = InputRounding(self.scheme.activation, static)
        row_scale = rows if isinstance(rows, float) else rows.T
        found = rounding(inputs / columns) @ quantised.dequantise().T / row_scale
        return float((found - inputs @ self.original.T).pow(2).mean())
