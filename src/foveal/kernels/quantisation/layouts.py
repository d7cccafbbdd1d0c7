"""A quantised weight as the tensors of a GPTQ or AWQ checkpoint, and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.affine import QuantisedWeight
from foveal.kernels.quantisation.packing import pack_awq, pack_words, unpack_awq, unpack_words
from foveal.kernels.quantisation.scheme import WeightScheme

__all__ = ["AwqTensors", "GptqTensors", "from_awq", "from_gptq", "gptq_dequantise", "to_awq", "to_gptq"]


@dataclass(frozen=True, slots=True)
class GptqTensors:
    """One linear of a GPTQ checkpoint (AutoGPTQ, GPTQModel)."""

    qweight: Tensor
    """int32 [in * bits / 32, out]."""
    qzeros: Tensor
    """int32 [groups, out * bits / 32]; version 1 stores the zero point - 1."""
    scales: Tensor
    """float16 [groups, out]."""
    g_idx: Tensor
    """int32 [in]: the group of every input."""


@dataclass(frozen=True, slots=True)
class AwqTensors:
    """One linear of an AWQ checkpoint (AutoAWQ's gemm version), 4 bits."""

    qweight: Tensor
    """int32 [in, out / 8]."""
    qzeros: Tensor
    """int32 [groups, out / 8]."""
    scales: Tensor
    """float16 [groups, out]."""


def to_gptq(weight: QuantisedWeight, *, version: int = 1) -> GptqTensors:
    """Raises ConfigurationError for a weight that is not integers in groups or channels, for an input or output that does
    not fill whole words, and in version 1 for a zero point of 0, which has no stored value."""
    codes, zero_points = _unsigned(weight, "GPTQ")
    bits = weight.scheme.bits
    for side, size in (("input", weight.shape[1]), ("output", weight.shape[0])):
        if size * bits % 32:
            raise ConfigurationError(
                f"GPTQ stores whole 32-bit words, and an {side} of {size} at {bits} bits does not fill them. "
                "Use compressed-tensors."
            )
    if version == 1:
        if (zero_points == 0).any():
            raise ConfigurationError(
                "GPTQ version 1 stores zero points less one, and this weight has a zero point of 0. "
                "Use version 2 (checkpoint_format gptq_v2), a symmetric scheme, or compressed-tensors."
            )
        zero_points = zero_points - 1
    in_features = weight.shape[1]
    group = in_features // weight.scale.shape[1]
    return GptqTensors(
        pack_words(codes, bits).T.contiguous(),
        pack_words(zero_points.T, bits),
        weight.scale.T.to(torch.float16).contiguous(),
        torch.arange(in_features, dtype=torch.int32) // group,
    )


def from_gptq(tensors: GptqTensors, scheme: WeightScheme, *, version: int = 1) -> QuantisedWeight:
    """Inverse of `to_gptq`. Raises ConfigurationError where inputs are not grouped in their order (act-order without
    static groups): such weights have no group layout, see `gptq_dequantise`."""
    in_features, groups = tensors.g_idx.numel(), tensors.scales.shape[0]
    if not torch.equal(tensors.g_idx.long(), torch.arange(in_features) // (in_features // groups)):
        raise ConfigurationError(
            "this GPTQ weight orders its inputs by activation, so its groups are not contiguous. Dequantise it instead."
        )
    codes, zero_points = _unpack_gptq(tensors, scheme.bits, version)
    return _quantised(codes, zero_points, tensors.scales, scheme)


def gptq_dequantise(tensors: GptqTensors, bits: int, *, version: int = 1) -> Tensor:
    """The weight float32 [out, in] of any GPTQ linear, whatever its order of inputs."""
    codes, zero_points = _unpack_gptq(tensors, bits, version)
    group_of = tensors.g_idx.long()
    scales = tensors.scales.T.float()
    return (codes.float() - zero_points.float()[:, group_of]) * scales[:, group_of]


def to_awq(weight: QuantisedWeight) -> AwqTensors:
    """Raises ConfigurationError for a weight that is not 4-bit integers in groups or channels, and unless 8 divides the
    output."""
    codes, zero_points = _unsigned(weight, "AWQ")
    if weight.scheme.bits != 4:
        raise ConfigurationError(f"AWQ's layout holds 4-bit codes, not {weight.scheme.bits}. Use compressed-tensors.")
    return AwqTensors(pack_awq(codes.T), pack_awq(zero_points.T), weight.scale.T.to(torch.float16).contiguous())


def from_awq(tensors: AwqTensors, scheme: WeightScheme) -> QuantisedWeight:
    """Inverse of `to_awq`."""
    zero_points = unpack_awq(tensors.qzeros).T.to(torch.int32)
    return _quantised(unpack_awq(tensors.qweight).T, zero_points, tensors.scales, scheme)


def _unsigned(weight: QuantisedWeight, layout: str) -> tuple[Tensor, Tensor]:
    """Codes [out, in] and zero points [out, groups], both unsigned; symmetric ones are moved up by half the range."""
    scheme = weight.scheme
    if scheme.kind != "int" or scheme.per_tensor:
        raise ConfigurationError(
            f"{layout}'s layout holds integers with scales per group or output channel, not {scheme.name}. "
            "Use compressed-tensors (or bnb-nf4 for NF4)."
        )
    if weight.zero_point is not None:
        return weight.codes, weight.zero_point
    middle = 2 ** (scheme.bits - 1)
    return weight.codes.to(torch.int16) + middle, torch.full_like(weight.scale, middle, dtype=torch.int32)


def _quantised(codes: Tensor, zero_points: Tensor, scales: Tensor, scheme: WeightScheme) -> QuantisedWeight:
    scale = scales.T.float().contiguous()
    if not scheme.symmetric:
        return QuantisedWeight(codes.contiguous(), scale, zero_points.to(torch.int32).contiguous(), scheme)
    middle = 2 ** (scheme.bits - 1)
    if (zero_points != middle).any():
        raise ConfigurationError(
            f"the scheme is symmetric, but this weight has zero points other than {middle}. Read it as asymmetric."
        )
    return QuantisedWeight((codes.to(torch.int16) - middle).to(torch.int8).contiguous(), scale, None, scheme)


def _unpack_gptq(tensors: GptqTensors, bits: int, version: int) -> tuple[Tensor, Tensor]:
    """Codes uint8 [out, in] and zero points int32 [out, groups]."""
    codes = unpack_words(tensors.qweight.T, bits, tensors.g_idx.numel())
    zero_points = unpack_words(tensors.qzeros, bits, tensors.scales.shape[1]).T.to(torch.int32)
    return codes, zero_points + 1 if version == 1 else zero_points
