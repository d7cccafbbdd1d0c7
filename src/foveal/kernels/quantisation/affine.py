"""Weights in few bits: scales from a weight, codes from scales, and back.

Scales are rounded to float16 (upwards) before codes are chosen, so that what is measured is what is stored. NF4 keeps
float32 block maxima, or 8-bit ones under double quantisation, and its codes too are chosen after that rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveal.core.errors import ModelLoadError
from foveal.kernels.quantisation import fp8, integer_grid, nf4
from foveal.kernels.quantisation.double_quantisation import NestedScale, nest
from foveal.kernels.quantisation.observers import Observer, value_range
from foveal.kernels.quantisation.scheme import WeightScheme, effective_group

__all__ = ["QuantisedWeight", "decode", "effective_group", "encode", "find_scales", "quantise", "round_scale"]


@dataclass(frozen=True, slots=True)
class QuantisedWeight:
    """A weight [out, in] as codes and scales."""

    codes: Tensor
    """[out, in]: int8 where symmetric, uint8 where asymmetric, float8_e4m3fn for FP8, indices 0..15 (uint8) for NF4."""
    scale: Tensor
    """float32 [out, groups], [1, 1] per tensor; the block maximum for NF4 (as read back under double quantisation)."""
    zero_point: Tensor | None
    """int32 [out, groups], asymmetric only."""
    scheme: WeightScheme
    nested: NestedScale | None = None
    """What is stored instead of `scale` under double quantisation."""

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.codes.shape[1]

    @property
    def stored_bytes(self) -> int:
        return self.scheme.stored_bytes(self.shape)

    def dequantise(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight [out, in] that the codes stand for, computed in float32."""
        codes = _grouped(self.codes, self.scheme)
        values = decode(codes, self.scale.unsqueeze(-1), _beside_groups(self.zero_point), self.scheme)
        return values.reshape(self.shape).to(dtype)


def find_scales(
    weight: Tensor,
    scheme: WeightScheme,
    observer: Observer = "minmax",
    *,
    importance: Tensor | None = None,
    k_sigma: float = 3.0,
    percentile: float = 99.9,
    smallest_shrink: float = 0.6,
    shrink_steps: int = 20,
    scale_dtype: torch.dtype = torch.float16,
) -> tuple[Tensor, Tensor | None]:
    """Scale float32 [out, groups] and zero point int32 (None unless asymmetric) of a weight [out, in].

    `mse` tries `shrink_steps` ranges from the full one down to `smallest_shrink` of it and keeps, per group, the one
    with the least squared error, weighted by `importance` [in] where given. Under double quantisation the scale is
    still unrounded: `quantise` nests it. Raises ConfigurationError for groups that do not divide the input, and
    ModelLoadError for a weight that is not finite.
    """
    values = _grouped(weight.float(), scheme)
    low, high = value_range(values, observer, k_sigma=k_sigma, percentile=percentile)
    if not torch.isfinite(high - low).all():
        raise ModelLoadError("a weight holds NaN or infinity, which no code stands for. Check the source checkpoint.")
    scale, zero_point = _scale_for_range(low, high, scheme, scale_dtype)
    if observer == "mse":
        weights = None if importance is None else _grouped(importance.float().expand_as(weight), scheme)
        least = _squared_error(values, scale, zero_point, scheme, weights)
        for shrink in torch.linspace(1, smallest_shrink, shrink_steps).tolist()[1:]:
            candidate, candidate_zero = _scale_for_range(low * shrink, high * shrink, scheme, scale_dtype)
            error = _squared_error(values, candidate, candidate_zero, scheme, weights)
            better = error < least
            least = torch.where(better, error, least)
            scale = torch.where(better, candidate, scale)
            if zero_point is not None and candidate_zero is not None:
                zero_point = torch.where(better, candidate_zero, zero_point)
    return scale.squeeze(-1), None if zero_point is None else zero_point.squeeze(-1)


def quantise(
    weight: Tensor, scheme: WeightScheme, scale: Tensor | None = None, zero_point: Tensor | None = None
) -> QuantisedWeight:
    """Round a weight [out, in] to the nearest codes; with min-max scales where none are given.

    Raises ConfigurationError for groups that do not divide the input.
    """
    if scale is None:
        scale, zero_point = find_scales(weight, scheme)
    nested = nest(scale) if scheme.double_quant else None
    if nested is not None:
        scale = nested.decode()
    values = _grouped(weight.float(), scheme)
    codes = encode(values, scale.unsqueeze(-1), _beside_groups(zero_point), scheme)
    return QuantisedWeight(codes.reshape(weight.shape), scale, zero_point, scheme, nested)


def encode(values: Tensor, scale: Tensor, zero_point: Tensor | None, scheme: WeightScheme) -> Tensor:
    """Codes of `values`, elementwise with broadcasting, in the code dtype of the scheme (see QuantisedWeight)."""
    if scheme.kind == "nf4":
        return nf4.encode(values, scale)
    if scheme.kind == "float":
        return fp8.encode(values, scale)
    codes = integer_grid.encode(values, scale, zero_point, scheme.code_range)
    return codes.to(torch.int8 if scheme.symmetric else torch.uint8)


def decode(codes: Tensor, scale: Tensor, zero_point: Tensor | None, scheme: WeightScheme) -> Tensor:
    """Values of `codes`, elementwise with broadcasting, in the dtype of `scale`."""
    if scheme.kind == "nf4":
        return nf4.decode(codes, scale)
    if scheme.kind == "float":
        return fp8.decode(codes, scale)
    return integer_grid.decode(codes, scale, zero_point)


def round_scale(scale: Tensor, dtype: torch.dtype = torch.float16) -> Tensor:
    """Positive scales rounded up to a 16-bit type, as float32. Upwards, so that no value falls off the end of its grid."""
    rounded = scale.clamp_max(torch.finfo(dtype).max).to(dtype)
    above = (rounded.view(torch.int16) + 1).view(dtype)  # the next larger value: positive floats order as integers
    return torch.where(rounded.float() < scale, above, rounded).float().clamp_max(torch.finfo(dtype).max)


def _scale_for_range(
    low: Tensor, high: Tensor, scheme: WeightScheme, scale_dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    if scheme.kind == "nf4":
        return torch.maximum(high, -low), None
    if scheme.kind == "float":
        return round_scale(fp8.scale_for_range(low, high), scale_dtype), None
    codes = scheme.code_range
    scale, zero_point = integer_grid.scale_for_range(low, high, codes, symmetric=scheme.symmetric)
    scale = round_scale(scale, scale_dtype)
    if zero_point is not None:
        zero_point = integer_grid.zero_point_for(low.clamp_max(0), scale, codes)
    return scale, zero_point


def _squared_error(
    values: Tensor, scale: Tensor, zero_point: Tensor | None, scheme: WeightScheme, weights: Tensor | None
) -> Tensor:
    error = (decode(encode(values, scale, zero_point, scheme), scale, zero_point, scheme) - values).square_()
    if weights is not None:
        error *= weights
    return error.sum(dim=-1, keepdim=True)


def _grouped(tensor: Tensor, scheme: WeightScheme) -> Tensor:
    """[out, in] -> [out, groups, group], [1, 1, out * in] per tensor."""
    if scheme.per_tensor:
        return tensor.reshape(1, 1, -1)
    return tensor.reshape(tensor.shape[0], scheme.groups_of(tensor.shape[1]), -1)


def _beside_groups(per_group: Tensor | None) -> Tensor | None:
    return None if per_group is None else per_group.unsqueeze(-1)
