"""GPTQ: round column by column, and let the columns not yet rounded make up for the error.

Source: arXiv 2210.17323. The compensation uses the Cholesky factor of the *inverse* Hessian; texts that print it with
the Hessian itself describe something worse than rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.affine import QuantisedWeight, find_scales
from foveal.kernels.quantisation.observers import Observer
from foveal.kernels.quantisation.scheme import WeightScheme

__all__ = ["gptq", "inverse_factor"]

_MAX_DAMPING = 1.0


def gptq(
    weight: torch.Tensor,
    hessian: torch.Tensor,
    scheme: WeightScheme,
    *,
    damping: float = 0.01,
    act_order: bool = False,
    block: int = 128,
    observer: Observer = "minmax",
) -> QuantisedWeight:
    """Weight [out, in] and 2/N X^T X [in, in] -> codes that minimise the output error. Computes in `hessian`'s dtype.

    `damping` is added to the diagonal as a share of its mean. Without `act_order`, scales of a group are chosen when its
    first column is reached, from the weights as compensated so far. With it, columns go from the most to the least
    active, and scales are those of the original groups ("static": no g_idx is stored, any reader can load it). `block`
    columns are updated at once before the rest (lazy); it does not change the result. With observer `mse`, the range of
    a group is the one with the least squared error, each column weighted by its share of the Hessian's diagonal.
    Raises ConfigurationError for schemes that are not integers.
    """
    if scheme.kind != "int":
        raise ConfigurationError(f"GPTQ rounds to integers; scheme {scheme.name} is not one. Use int4 or int8, or RTN.")
    original = weight
    weight = weight.to(hessian.dtype).clone()
    rows, columns = weight.shape
    group = scheme.group or columns
    scheme.groups_of(columns)  # refuses groups that do not divide
    dynamic = not act_order and scheme.group is not None
    order = torch.argsort(hessian.diagonal(), descending=True, stable=True) if act_order else torch.arange(columns)
    factor = inverse_factor(hessian[order][:, order], damping)
    grid = _Grid.of(original, scheme, observer, hessian.diagonal())
    weight = weight[:, order]
    codes = torch.empty(rows, columns, dtype=torch.int32)
    for start in range(0, columns, block):
        end = min(start + block, columns)
        errors = torch.empty(rows, end - start, dtype=weight.dtype)
        for column in range(start, end):
            place = int(order[column])
            if dynamic and place % group == 0:
                # The group may reach beyond the block: bring its columns up to date first.
                current = weight[:, place : place + group].clone()
                beyond = max(0, place + group - end)
                if beyond and column > start:
                    current[:, -beyond:] -= errors[:, : column - start] @ factor[start:column, end : end + beyond]
                grid.choose(place // group, current)
            value = weight[:, column]
            code, rounded = grid.round(value, place // group)
            codes[:, place] = code
            error = (value - rounded) / factor[column, column]
            weight[:, column:end] -= error[:, None] * factor[column, column:end]
            errors[:, column - start] = error
        weight[:, end:] -= errors @ factor[start:end, end:]
    return QuantisedWeight(codes.to(grid.code_dtype), grid.scale, grid.zero_point, scheme)


def inverse_factor(hessian: torch.Tensor, damping: float) -> torch.Tensor:
    """Upper Cholesky factor of the inverse of the damped Hessian [in, in].

    Inputs that never fire get a unit diagonal: their weights are rounded and disturb no others. A Hessian that is
    singular to rounding is damped ten times more, until it can be factored.
    """
    hessian = hessian.clone()
    silent = hessian.diagonal() == 0
    hessian.diagonal()[silent] = hessian.diagonal()[~silent].mean() if bool((~silent).any()) else 1.0
    mean = hessian.diagonal().mean()
    while True:
        damped = hessian.clone()
        damped.diagonal().add_(damping * mean)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed:
                return upper
        if damping >= _MAX_DAMPING:
            raise ConfigurationError(
                f"the Hessian cannot be inverted even with damping {damping}. The inputs hold NaN or infinity: check the "
                "model and the calibration data."
            )
        damping = min(max(10 * damping, 1e-4), _MAX_DAMPING)


@dataclass
class _Grid:
    """Scales [out, groups] and zero points of the weight being rounded; per tensor they are [1, 1]."""

    scheme: WeightScheme
    scale: torch.Tensor
    zero_point: torch.Tensor | None
    observer: Observer
    importance: torch.Tensor
    """[in], of the columns in their stored order."""

    @classmethod
    def of(cls, weight: torch.Tensor, scheme: WeightScheme, observer: Observer, importance: torch.Tensor) -> _Grid:
        scale, zero_point = find_scales(weight, scheme, observer=observer, importance=importance)
        return cls(scheme, scale.clone(), None if zero_point is None else zero_point.clone(), observer, importance)

    @property
    def code_dtype(self) -> torch.dtype:
        return torch.int8 if self.scheme.symmetric else torch.uint8

    def choose(self, group: int, weight: torch.Tensor) -> None:
        """Scales of one group from its weights [out, group]."""
        alone = replace(self.scheme, group_size=None)
        columns = slice(group * weight.shape[1], (group + 1) * weight.shape[1])
        scale, zero_point = find_scales(
            weight.float(), alone, observer=self.observer, importance=self.importance[columns]
        )
        self.scale[:, group] = scale[:, 0]
        if self.zero_point is not None and zero_point is not None:
            self.zero_point[:, group] = zero_point[:, 0]

    def round(self, column: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(codes, their values) of one column [out]."""
        group = 0 if self.scheme.group is None else group
        low, high = self.scheme.code_range
        scale = self.scale[:, group].to(column.dtype)
        zero = 0 if self.zero_point is None else self.zero_point[:, group].to(column.dtype)
        codes = (torch.round(column / scale) + zero).clamp(low, high)
        return codes.to(torch.int32), (codes - zero) * scale
