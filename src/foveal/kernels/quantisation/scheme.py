"""How a linear's weight and input are stored: values only, no torch.

The name of a scheme is stable (passports, recipes and reports carry it) and is read back by `parse`:

    int4-g64  int4-g64-asym  int8  int8-tensor  nf4-g64-dq  fp8         weight only
    w8a8-dynamic  w8a8-static-asym  w4a8-g64-asym-dynamic               integer weight and integer input
    fp8+a8-dynamic                                                      any other weight with an integer input

In the integer form, `asym` before `dynamic` or `static` is the weight's, after it the input's.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from foveal.core.errors import ConfigurationError

__all__ = [
    "NESTED_BLOCK",
    "PER_TENSOR",
    "ActivationScheme",
    "LinearScheme",
    "WeightKind",
    "WeightScheme",
    "effective_group",
    "parse_linear",
    "parse_weight",
]

WeightKind = Literal["int", "float", "nf4"]

PER_TENSOR = -1
"""`group_size` of a scheme with one scale for the whole weight."""

NESTED_BLOCK = 256
"""Block scales that share one second-level scale under double quantisation (bitsandbytes' value)."""

_SCALE_BYTES = 2  # float16, see affine.find_scales
_ABSMAX_BYTES = 4  # bitsandbytes keeps block maxima in float32
_NF4_MAP_BYTES = 16 * 4
_NESTED_MAP_BYTES = 256 * 4
_WORD_BITS = 32
_SMALLEST_FALLBACK = 32


@dataclass(frozen=True, slots=True)
class WeightScheme:
    """How a weight [out, in] is stored.

    `group_size`: None is one scale per output channel, -1 one for the whole tensor, otherwise one per that many
    neighbours along the input. `double_quant` (NF4 only) keeps the block maxima in 8 bits.
    """

    kind: WeightKind = "int"
    bits: int = 4
    symmetric: bool = True
    group_size: int | None = None
    double_quant: bool = False

    def __post_init__(self) -> None:
        allowed = {"int": range(2, 9), "float": (8,), "nf4": (4,)}
        if self.kind not in allowed:
            raise ConfigurationError(f"weight kind {self.kind!r} is not known. Use one of int, float, nf4.")
        if self.bits not in allowed[self.kind]:
            choices = ", ".join(map(str, allowed[self.kind]))
            raise ConfigurationError(f"{self.kind} weights of {self.bits} bits are not known. Use one of: {choices}.")
        if self.group_size is not None and self.group_size != PER_TENSOR and self.group_size < 1:
            raise ConfigurationError(
                f"group size {self.group_size} is not possible. Use a positive number (32, 64, 128), "
                f"{PER_TENSOR} for one scale per tensor, or none for one scale per output channel."
            )
        if self.kind != "int" and not self.symmetric:
            raise ConfigurationError(f"{self.kind} weights have no zero point. Use symmetric, or integer weights.")
        if self.kind == "nf4" and self.group is None:
            raise ConfigurationError("nf4 weights need a block size, and none was given. Use group_size 64.")
        if self.double_quant and self.kind != "nf4":
            raise ConfigurationError(f"double quantisation exists for nf4, not for {self.kind}. Leave it out.")

    @property
    def group(self) -> int | None:
        """The group size, or None where scales are per output channel or per tensor."""
        return None if self.group_size == PER_TENSOR else self.group_size

    @property
    def per_tensor(self) -> bool:
        return self.group_size == PER_TENSOR

    @property
    def code_range(self) -> tuple[int, int]:
        """Lowest and highest integer code: 8 bits symmetric is [-127, 127], 4 bits symmetric [-8, 7], asymmetric
        [0, 2^b - 1], NF4 the index [0, 15]. Raises ConfigurationError for floats, whose codes are not integers."""
        if self.kind == "float":
            raise ConfigurationError("float weights have no integer codes. Ask for int or nf4.")
        if self.kind == "nf4" or not self.symmetric:
            return 0, 2**self.bits - 1
        high = 2 ** (self.bits - 1) - 1
        # The 8-bit range leaves out -128, so that codes times codes stay symmetric; narrow grids cannot spare a level.
        return (-high if self.bits == 8 else -high - 1), high

    @property
    def name(self) -> str:
        return _weight_head(self) + _weight_tail(self)

    def groups_of(self, in_features: int) -> int:
        """Scales per output channel. Raises ConfigurationError when groups do not divide the input."""
        if self.group is None:
            return 1
        if in_features % self.group:
            raise ConfigurationError(
                f"groups of {self.group} do not divide an input of {in_features}. "
                "Use a divisor (32 or 64), or one scale per output channel."
            )
        return in_features // self.group

    def stored_bytes(self, shape: tuple[int, int]) -> int:
        """Bytes of a weight [out, in] on disk: codes, scales, zero points and, for NF4, its look-up tables.

        4-bit and narrower codes are packed densely in 32-bit words along the input, zero points along the output (as
        compressed-tensors does); scales are float16. NF4 is as bitsandbytes stores it, without the small JSON that
        describes the tensor.
        """
        out_features, in_features = shape
        scales = 1 if self.per_tensor else out_features * self.groups_of(in_features)
        if self.kind == "nf4":
            return math.ceil(out_features * in_features / 2) + _NF4_MAP_BYTES + self._absmax_bytes(scales)
        if self.bits == 8 and self.symmetric:
            return out_features * in_features + scales * _SCALE_BYTES
        codes = out_features * _packed_bytes(in_features, self.bits)
        if self.symmetric:
            return codes + scales * _SCALE_BYTES
        rows, columns = (1, 1) if self.per_tensor else (out_features, self.groups_of(in_features))
        return codes + scales * _SCALE_BYTES + columns * _packed_bytes(rows, self.bits)

    def stored_bits_per_weight(self, shape: tuple[int, int]) -> float:
        return 8 * self.stored_bytes(shape) / (shape[0] * shape[1])

    def _absmax_bytes(self, blocks: int) -> int:
        if not self.double_quant:
            return blocks * _ABSMAX_BYTES
        return blocks + math.ceil(blocks / NESTED_BLOCK) * _ABSMAX_BYTES + _NESTED_MAP_BYTES


@dataclass(frozen=True, slots=True)
class ActivationScheme:
    """How the input of a linear is rounded: integers of `bits`, one scale per token found at run time (`dynamic`) or
    one per tensor found by calibration."""

    bits: int = 8
    dynamic: bool = True
    symmetric: bool = True

    def __post_init__(self) -> None:
        if self.bits not in range(4, 9):
            raise ConfigurationError(f"activations of {self.bits} bits are not supported. Use 8 (or 4 to 7 to study).")

    @property
    def code_range(self) -> tuple[int, int]:
        """Lowest and highest code: symmetric is [-(2^(b-1) - 1), 2^(b-1) - 1], asymmetric [0, 2^b - 1]."""
        high = 2 ** (self.bits - 1) - 1
        return (-high, high) if self.symmetric else (0, 2**self.bits - 1)

    @property
    def name(self) -> str:
        """For example `a8-dynamic`, `a8-static-asym`."""
        return f"a{self.bits}-{self.tail}"

    @property
    def tail(self) -> str:
        return ("dynamic" if self.dynamic else "static") + ("" if self.symmetric else "-asym")


@dataclass(frozen=True, slots=True)
class LinearScheme:
    """Weight and, where it is rounded too, input of one linear."""

    weight: WeightScheme
    activation: ActivationScheme | None = None

    @property
    def name(self) -> str:
        if self.activation is None:
            return self.weight.name
        if self.weight.kind != "int":
            return f"{self.weight.name}+{self.activation.name}"
        return f"w{self.weight.bits}a{self.activation.bits}{_weight_tail(self.weight)}-{self.activation.tail}"


def effective_group(in_features: int, wanted: int) -> int | None:
    """The largest of `wanted`, its half, its quarter ... down to 32 that divides the input; None where none does.

    A hidden size of 576 has no groups of 128: it gets 64. The caller records the fallback.
    """
    group = wanted
    while group >= min(wanted, _SMALLEST_FALLBACK):
        if in_features % group == 0:
            return group
        group //= 2
    return None


_GRANULARITY = r"(?:-(?:g(?P<group>\d+)|(?P<tensor>tensor)))?"
_WEIGHT = re.compile(rf"(?:int(?P<bits>\d+)|(?P<kind>nf4|fp8)){_GRANULARITY}(?P<asym>-asym)?(?P<dq>-dq)?")
_INTEGER = re.compile(
    rf"w(?P<bits>\d+)a(?P<abits>\d+){_GRANULARITY}(?P<asym>-asym)?-(?P<when>dynamic|static)(?P<aasym>-asym)?"
)
_ACTIVATION = re.compile(r"a(?P<abits>\d+)-(?P<when>dynamic|static)(?P<aasym>-asym)?")


def parse_weight(name: str) -> WeightScheme:
    """The scheme whose name this is. Raises ConfigurationError."""
    match = _WEIGHT.fullmatch(name)
    if match is None:
        raise _unreadable(name)
    kind: WeightKind = "int" if match["kind"] is None else "nf4" if match["kind"] == "nf4" else "float"
    bits = int(match["bits"]) if kind == "int" else 4 if kind == "nf4" else 8
    return WeightScheme(kind, bits, match["asym"] is None, _granularity(match), match["dq"] is not None)


def parse_linear(name: str) -> LinearScheme:
    """The scheme whose name this is. Raises ConfigurationError."""
    weight, plus, activation = name.partition("+")
    if plus:
        match = _ACTIVATION.fullmatch(activation)
        if match is None:
            raise _unreadable(name)
        return LinearScheme(parse_weight(weight), _activation(match))
    match = _INTEGER.fullmatch(name)
    if match is None:
        return LinearScheme(parse_weight(name))
    return LinearScheme(
        WeightScheme("int", int(match["bits"]), match["asym"] is None, _granularity(match)), _activation(match)
    )


def _weight_head(scheme: WeightScheme) -> str:
    return {"int": f"int{scheme.bits}", "float": "fp8", "nf4": "nf4"}[scheme.kind]


def _weight_tail(scheme: WeightScheme) -> str:
    granularity = "-tensor" if scheme.per_tensor else "" if scheme.group is None else f"-g{scheme.group}"
    return granularity + ("" if scheme.symmetric else "-asym") + ("-dq" if scheme.double_quant else "")


def _granularity(match: re.Match[str]) -> int | None:
    return PER_TENSOR if match["tensor"] else int(match["group"]) if match["group"] else None


def _activation(match: re.Match[str]) -> ActivationScheme:
    return ActivationScheme(int(match["abits"]), match["when"] == "dynamic", match["aasym"] is None)


def _packed_bytes(values: int, bits: int) -> int:
    return math.ceil(values * bits / _WORD_BITS) * 4


def _unreadable(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name!r} is not the name of a scheme. Write one like int4-g64, int4-g64-asym, int8, nf4-g64-dq, fp8 or "
        "w8a8-dynamic."
    )
