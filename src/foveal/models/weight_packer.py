"""From the linears of a loaded model to native matrices: stored codes as they are, the rest rounded on load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch

from foveal.core.errors import ConfigurationError
from foveal.kernels.native.packed_matrix import NativeMatrix, interleave_halves, pack_dense, pack_quantised
from foveal.kernels.quantisation.affine import QuantisedWeight, find_scales, quantise
from foveal.kernels.quantisation.scheme import WeightScheme, effective_group
from foveal.models.quantised.stored_weight import StoredWeight

__all__ = ["LoadMode", "QuantizeMode", "WeightPacker"]

QuantizeMode = Literal["none", "float16", "bfloat16", "int8", "int4"]
LoadMode = Literal["stored", "none", "float16", "bfloat16", "int8", "int4"]
"""What native kernels are loaded for: "stored" only where the checkpoint holds codes, otherwise always."""

_INT8 = WeightScheme("int", 8, True, None)
_SMALLEST_GROUP = 32
_DENSE = {"none": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class WeightPacker:
    """Packs groups of linears that share an input.

    `stored` holds, by module, weights whose checkpoint has codes already. Others are rounded as `mode` says: to float16 or
    bfloat16, to int8 in groups of 32, or to int4 in such groups with a zero point each, where nothing sensitive is lost.
    """

    def __init__(self, mode: QuantizeMode, stored: Mapping[torch.nn.Module, StoredWeight]) -> None:
        self.mode = mode
        self._stored = stored

    def at_least_8_bits(self) -> WeightPacker:
        """The same, but what is rounded gets 8 bits; stored codes stay."""
        return WeightPacker("int8" if self.mode in ("int8", "int4") else "none", self._stored)

    def rounds(self, module: torch.nn.Module) -> bool:
        """True where the packed weight has codes: stored ones, or made on load."""
        return self.mode in ("int8", "int4") or module in self._stored

    def pack(
        self, modules: Sequence[torch.nn.Linear], *, interleaved: bool = False, sensitive: bool = False
    ) -> NativeMatrix:
        """One matrix for `modules`; `interleaved` for gate and up. A `sensitive` one is rounded to 8 bits at the lowest."""
        bias = None
        if modules[0].bias is not None:
            bias = torch.cat([module.bias.detach() for module in modules])
        bias = interleave_halves(bias) if bias is not None and interleaved else bias
        codes = self._codes(modules)
        if codes is None:
            weight = torch.cat([module.weight.detach() for module in modules]).float()
            if self.mode in _DENSE:
                weight = interleave_halves(weight) if interleaved else weight
                return pack_dense(_rounded(weight, _DENSE[self.mode]), bias)
            codes = self._round(weight, sensitive=sensitive)
        return pack_quantised(_interleaved(codes) if interleaved else codes, bias)

    def _round(self, weight: torch.Tensor, *, sensitive: bool) -> QuantisedWeight:
        group = effective_group(weight.shape[1], _SMALLEST_GROUP)
        if self.mode == "int8" or sensitive or group is None:
            # A sixth less error than with one scale per output, for 6 % more bytes (decision 0024).
            return quantise(weight, WeightScheme("int", 8, True, group))
        # A zero point costs the kernels nothing and takes half of the loss away (decision 0014).
        scheme = WeightScheme("int", 4, False, group)
        scale, zero_point = find_scales(weight, scheme, "mse", smallest_shrink=0.8, shrink_steps=6)
        return quantise(weight, scheme, scale, zero_point)

    def _codes(self, modules: Sequence[torch.nn.Linear]) -> QuantisedWeight | None:
        """The stored codes of all `modules`, rounded anew where the kernels do not read them; None if none is stored."""
        if not any(module in self._stored for module in modules):
            return None
        parts = []
        for module in modules:
            stored = self._stored.get(module)
            if stored is None or stored.read_dense is not None:
                break
            parts.append(stored.read())
        if len(parts) < len(modules) or any(part.scheme != parts[0].scheme for part in parts):
            return quantise(torch.cat([module.weight.detach() for module in modules]).float(), _INT8)
        joined = _joined(parts)
        return joined if _is_native(joined) else quantise(joined.dequantise(), _INT8)


def _rounded(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    most = weight.abs().max().item()
    if most > torch.finfo(dtype).max:
        raise ConfigurationError(
            f"a weight is {most:,.0f}; {dtype} ends at {torch.finfo(dtype).max:,.0f}. Take --quantize bfloat16."
        )
    return weight.to(dtype)


def _is_native(weight: QuantisedWeight) -> bool:
    scheme = weight.scheme
    fits = scheme.group is None or scheme.group % _SMALLEST_GROUP == 0
    return scheme.kind == "int" and fits and (scheme.bits <= 4 or scheme.symmetric)


def _joined(parts: Sequence[QuantisedWeight]) -> QuantisedWeight:
    """Weights of one scheme below each other."""
    scheme = parts[0].scheme
    if len(parts) == 1 and not scheme.per_tensor:
        return parts[0]
    zero_point = None
    if parts[0].zero_point is not None:
        zero_point = torch.cat([_per_row(part.zero_point, len(part.codes)) for part in parts])
    scale = torch.cat([_per_row(part.scale, len(part.codes)) for part in parts])
    if scheme.per_tensor:
        scheme = WeightScheme(scheme.kind, scheme.bits, scheme.symmetric, None)
    return QuantisedWeight(torch.cat([part.codes for part in parts]), scale, zero_point, scheme)


def _per_row(values: torch.Tensor | None, rows: int) -> torch.Tensor:
    assert values is not None
    return values.expand(rows, values.shape[1])


def _interleaved(weight: QuantisedWeight) -> QuantisedWeight:
    """Rows of gate and up in turns. Where turns are padded with zero rows, their scale is 0."""
    zero_point = None if weight.zero_point is None else interleave_halves(weight.zero_point)
    return QuantisedWeight(interleave_halves(weight.codes), interleave_halves(weight.scale), zero_point, weight.scheme)
