"""Weights in the order in which the native kernels read them (layouts: csrc/matrix.h)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from foveal.core.errors import ConfigurationError
from foveal.kernels.native.extension import require_native
from foveal.kernels.native.large_pages import in_large_pages
from foveal.kernels.quantisation.affine import QuantisedWeight

__all__ = ["NativeMatrix", "interleave_halves", "pack_dense", "pack_quantised"]

_PANEL = 32
_GROUP = 32
_LANES = 16


@dataclass(frozen=True)
class NativeMatrix:
    """A packed weight of `out_features` rows; `handle` is the extension's, and keeps the arrays alive."""

    handle: Any
    in_features: int
    out_features: int
    kind: str
    num_bytes: int
    """Read from memory by one product: codes, scales, bias."""
    group: int | None = None
    """Neighbouring inputs that share a scale; None for one scale per output, or none at all."""


def pack_dense(weight: torch.Tensor, bias: torch.Tensor | None = None) -> NativeMatrix:
    """A weight [out, in], float32, float16 or bfloat16, as it is; `bias` [out] becomes float32."""
    kind = str(weight.dtype).removeprefix("torch.")
    if kind not in ("float32", "float16", "bfloat16"):
        raise ConfigurationError(f"native kernels know float32, float16 and bfloat16 weights, not {kind}. Convert it.")
    panels = _pad_rows(weight).reshape(-1, _PANEL, weight.shape[1]).transpose(1, 2).contiguous()
    return _make(kind, weight.shape, panels.shape[0] * _PANEL, weight.shape[1], panels, bias=bias)


def pack_quantised(weight: QuantisedWeight, bias: torch.Tensor | None = None) -> NativeMatrix:
    """Integer codes with their scales; the sum of every group is computed exactly as the codes say.

    Up to 4 bits go as 4, in groups that are multiples of 32; other symmetric integer weights go as 8, per output channel or
    tensor or in such groups. Raises ConfigurationError for what fits neither.
    """
    in_features = weight.shape[1]
    scheme = weight.scheme
    if scheme.kind != "int":
        raise ConfigurationError(
            f"native kernels know integer codes, not {scheme.name}. Dequantise and round it first."
        )
    padded = -(-in_features // _GROUP) * _GROUP
    group = scheme.group
    if scheme.bits <= 4 and (group is None or group % _GROUP == 0):
        return _pack_int4(weight, padded, group or in_features, bias)
    if scheme.symmetric and (group is None or group % _GROUP == 0):
        return _pack_int8(weight, padded, group, bias)
    raise ConfigurationError(
        f"native kernels cannot read {scheme.name}. Use symmetric int8, or 4 bits, in groups of 32, 64 or 128."
    )


def interleave_halves(tensor: torch.Tensor) -> torch.Tensor:
    """Rows [gate; up] in turns of 16: what `finish="silu_mul"` expects. Both halves are padded with zeros to whole turns."""
    half = tensor.shape[0] // 2
    padding = [0, 0] * (tensor.dim() - 1) + [0, -half % _LANES]
    gate, up = (F.pad(part, padding) for part in tensor.split(half))
    parts = torch.stack((gate.reshape(-1, _LANES, *gate.shape[1:]), up.reshape(-1, _LANES, *up.shape[1:])), 1)
    return parts.reshape(-1, *tensor.shape[1:])


def _pack_int8(weight: QuantisedWeight, padded: int, group: int | None, bias: torch.Tensor | None) -> NativeMatrix:
    out_features, in_features = weight.shape
    codes = _pad(weight.codes.to(torch.int16) + 128, padded, 128).to(torch.uint8)
    codes = F.pad(codes, (0, 0, 0, -out_features % _PANEL), value=128)
    panels = codes.reshape(-1, _PANEL, padded // 4, 4).transpose(1, 2).contiguous()
    shape = (out_features, in_features)
    if group is None:
        channel = weight.scale.float().expand(out_features, 1).reshape(-1)
        return _make("int8", shape, len(codes), padded, panels, channel=channel, bias=bias)
    channel, relative = _relative(weight.scale.float().expand(out_features, padded // group))
    scales = _panels_of_halves(relative)
    return _make("int8", shape, len(codes), padded, panels, channel=channel, bias=bias, scales=scales, group=group)


def _pack_int4(weight: QuantisedWeight, padded: int, group: int, bias: torch.Tensor | None) -> NativeMatrix:
    out_features, in_features = weight.shape
    symmetric = weight.scheme.symmetric
    offset = 8 if symmetric else 0
    codes = _pad(weight.codes.to(torch.int16) + offset, padded, offset).to(torch.uint8)
    codes = F.pad(codes, (0, 0, 0, -out_features % _PANEL), value=offset)
    # [panel, output, group, pair of fours, low or high, 4] -> [panel, group, pair, output, 4] with both halves in one byte.
    parts = codes.reshape(-1, _PANEL, padded // _GROUP, _GROUP // 8, 2, 4).permute(0, 2, 3, 1, 4, 5)
    panels = (parts[..., 0, :] | parts[..., 1, :] << 4).contiguous()
    if group == in_features:  # one scale per output: the padding belongs to the same group
        group = padded
    channel, relative = _relative(weight.scale.float().expand(out_features, padded // group))
    minimums = None
    if not symmetric:
        zero_point = weight.zero_point
        assert zero_point is not None
        minimums = _panels_of_halves(-relative * zero_point.expand_as(relative))
    return _make(
        "int4",
        (out_features, in_features),
        len(codes),
        padded,
        panels,
        channel=channel,
        bias=bias,
        scales=_panels_of_halves(relative),
        minimums=minimums,
        group=group,
    )


def _relative(scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[out] the largest scale of each row, and [out, groups] relative to it: halves lose nothing to a small size then."""
    channel = scale.amax(1).clamp_min(torch.finfo(torch.float32).tiny)
    return channel, scale / channel[:, None]


def _panels_of_halves(values: torch.Tensor) -> torch.Tensor:
    """[out, groups] -> [out / 32, groups, 32] bits of float16."""
    rows = _pad_rows(values)
    halves = rows.reshape(-1, _PANEL, values.shape[1]).transpose(1, 2).contiguous().half()
    return halves.view(torch.uint16)


def _pad(codes: torch.Tensor, columns: int, value: int) -> torch.Tensor:
    return F.pad(codes, (0, columns - codes.shape[1]), value=value)


def _pad_rows(tensor: torch.Tensor) -> torch.Tensor:
    return F.pad(tensor, [0, 0] * (tensor.dim() - 1) + [0, -tensor.shape[0] % _PANEL])


def _make(
    kind: str,
    shape: tuple[int, int] | torch.Size,
    n: int,
    k: int,
    panels: torch.Tensor,
    *,
    channel: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    scales: torch.Tensor | None = None,
    minimums: torch.Tensor | None = None,
    group: int = 0,
) -> NativeMatrix:
    data = in_large_pages(panels)
    channel = None if channel is None else _pad_rows(channel.float()).contiguous()
    bias = None if bias is None else _pad_rows(bias.detach().float()).contiguous()
    arrays = [None if array is None else array.numpy() for array in (scales, minimums, channel, bias)]
    handle = require_native().make_matrix(kind, shape[0], n, k, data.numpy(), *arrays, group)
    stored = [array for array in (data, scales, minimums, channel, bias) if array is not None]
    return NativeMatrix(handle, shape[1], shape[0], kind, sum(array.nbytes for array in stored), group or None)
