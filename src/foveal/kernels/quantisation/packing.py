"""Codes narrower than a byte in 32-bit words, as checkpoints of compressed-tensors, GPTQ and AWQ store them.

All three put the first value in the lowest bits. They differ in what they pack along and what they add:

    compressed-tensors   weight along the input, zero points along the output; signed codes are stored + 2^(b-1)
    GPTQ                 weight transposed, along the input; zero points along the output, stored - 1 in version 1
    AWQ                  weight transposed, along the output, and zero points too; 4 bits, eight values in the order
                         0, 2, 4, 6, 1, 3, 5, 7

Unsigned codes [0, 2^b - 1] with zero point z and signed codes [-2^(b-1), 2^(b-1) - 1] with zero point z - 2^(b-1) have the
same stored bits; symmetric weights are the case z = 2^(b-1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from foveal.core.errors import ConfigurationError

__all__ = [
    "pack_along_input",
    "pack_along_output",
    "pack_awq",
    "pack_int4",
    "pack_words",
    "unpack_along_input",
    "unpack_along_output",
    "unpack_awq",
    "unpack_int4",
    "unpack_words",
]

_WORD = 32
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def pack_words(values: Tensor, bits: int) -> Tensor:
    """Pack unsigned values [rows, n] densely: int32 [rows, ceil(n * bits / 32)], value i at bit i * bits.

    Values of a width that does not divide 32 straddle words. Unused bits are zero.
    """
    rows, count = values.shape
    if 8 % bits == 0:
        return _pack_bytes(values.to(torch.uint8), bits)
    padded = torch.nn.functional.pad(values.to(torch.int64), (0, -count % _WORD)).reshape(rows, -1, _WORD)
    words = torch.zeros(*padded.shape[:2], bits, dtype=torch.int64, device=values.device)
    for index in range(_WORD):
        word, offset = divmod(index * bits, _WORD)
        words[..., word] |= padded[..., index] << offset
        if offset + bits > _WORD:
            words[..., word + 1] |= padded[..., index] >> (_WORD - offset)
    return _as_int32(words).reshape(rows, -1)[:, : math.ceil(count * bits / _WORD)].contiguous()


def unpack_words(words: Tensor, bits: int, count: int) -> Tensor:
    """Inverse of `pack_words`: unsigned values, uint8 [rows, count]."""
    rows = words.shape[0]
    if 8 % bits == 0:
        held = words.contiguous().view(torch.uint8)
        parts = [held >> shift & (2**bits - 1) for shift in range(0, 8, bits)]
        return torch.stack(parts, dim=-1).reshape(rows, -1)[:, :count].contiguous()
    padded = torch.nn.functional.pad(words.to(torch.int64) & 0xFFFFFFFF, (0, -words.shape[1] % bits))
    padded = padded.reshape(rows, -1, bits)
    values = torch.empty(*padded.shape[:2], _WORD, dtype=torch.uint8, device=words.device)
    for index in range(_WORD):
        word, offset = divmod(index * bits, _WORD)
        value = padded[..., word] >> offset
        if offset + bits > _WORD:
            value = value | padded[..., word + 1] << (_WORD - offset)
        values[..., index] = value & (2**bits - 1)
    return values.reshape(rows, -1)[:, :count].contiguous()


def pack_along_input(codes: Tensor, bits: int) -> Tensor:
    """compressed-tensors' `weight_packed`: int32 [out, ceil(in * bits / 32)] of codes [out, in], int8 or uint8."""
    return pack_words(_unsigned(codes, bits), bits)


def unpack_along_input(packed: Tensor, bits: int, in_features: int, *, symmetric: bool = True) -> Tensor:
    """Codes [out, in] of `weight_packed`: int8 where symmetric, otherwise uint8."""
    return _restore(unpack_words(packed, bits, in_features), bits, symmetric)


def pack_along_output(zero_points: Tensor, bits: int) -> Tensor:
    """compressed-tensors' `weight_zero_point`: int32 [ceil(out * bits / 32), groups] of zero points [out, groups]."""
    return pack_words(zero_points.T, bits).T.contiguous()


def unpack_along_output(packed: Tensor, bits: int, out_features: int) -> Tensor:
    """Zero points int32 [out, groups] of `weight_zero_point`."""
    return unpack_words(packed.T, bits, out_features).T.to(torch.int32).contiguous()


def pack_int4(codes: Tensor) -> Tensor:
    """compressed-tensors' 4-bit `weight_packed`: int32 [out, ceil(in / 8)] of codes [out, in]."""
    return pack_along_input(codes, 4)


def unpack_int4(packed: Tensor, in_features: int, *, symmetric: bool = True) -> Tensor:
    return unpack_along_input(packed, 4, in_features, symmetric=symmetric)


def pack_awq(values: Tensor) -> Tensor:
    """AWQ's words: int32 [rows, n / 8] of unsigned 4-bit values [rows, n]. Raises ConfigurationError unless 8 divides n."""
    rows, count = values.shape
    if count % 8:
        raise ConfigurationError(
            f"AWQ packs eight outputs into a word, and {count} is not a multiple of 8. Use compressed-tensors."
        )
    return pack_words(values.reshape(rows, -1, 8)[..., list(_AWQ_ORDER)].reshape(rows, count), 4)


def unpack_awq(words: Tensor) -> Tensor:
    """Inverse of `pack_awq`: uint8 [rows, 8 * words]."""
    stored = unpack_words(words, 4, 8 * words.shape[1]).reshape(words.shape[0], -1, 8)
    values = torch.empty_like(stored)
    values[..., list(_AWQ_ORDER)] = stored
    return values.reshape(words.shape[0], -1)


def _pack_bytes(values: Tensor, bits: int) -> Tensor:
    """Widths that divide a byte: join bytes, then read four as one word (lowest first, as all supported hosts do)."""
    padded = torch.nn.functional.pad(values, (0, -values.shape[1] % (_WORD // bits)))
    per_byte = padded.reshape(values.shape[0], -1, 8 // bits)
    joined = per_byte[..., 0].clone(memory_format=torch.contiguous_format)
    for index in range(1, 8 // bits):
        joined |= per_byte[..., index] << (index * bits)
    return joined.view(torch.int32)


def _unsigned(codes: Tensor, bits: int) -> Tensor:
    # In bytes, adding half the range modulo 256 is the same as in integers: codes fit their width.
    return codes.view(torch.uint8) + 2 ** (bits - 1) if codes.dtype == torch.int8 else codes


def _restore(values: Tensor, bits: int, symmetric: bool) -> Tensor:
    return (values.to(torch.int16) - 2 ** (bits - 1)).to(torch.int8) if symmetric else values


def _as_int32(words: Tensor) -> Tensor:
    """Unsigned 32-bit words held in int64, as int32 of the same bits."""
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)
