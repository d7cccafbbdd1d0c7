"""GPTQ and AWQ weights read with numpy, from the layouts as their projects publish them. Shares no code with Foveal.

Sources: AutoGPTQ and GPTQModel (version 1: zero points stored less one, codes packed along the input), AutoAWQ's `gemm`
version (codes packed along the output, the eight of a word in the order 0, 2, 4, 6, 1, 3, 5, 7).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["read_awq", "read_gptq"]

_WORD_BITS = 32
_AWQ_BITS = 4
_AWQ_PLACES = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighbouring outputs stands in each nibble, from the lowest."""

Array = npt.NDArray[np.generic]


def read_gptq(
    qweight: Array, qzeros: Array, scales: Array, g_idx: Array, bits: int, version: int
) -> npt.NDArray[np.float32]:
    """int32 [in * bits / 32, out], int32 [groups, out * bits / 32], [groups, out], int32 [in] -> weight [out, in].

    Version 1 stores zero points less one.
    """
    codes = _fields(qweight.T, bits).T
    zero_points = _fields(qzeros, bits) + (version == 1)
    return ((codes - zero_points[g_idx]) * scales.astype(np.float32)[g_idx]).T.astype(np.float32)


def read_awq(qweight: Array, qzeros: Array, scales: Array) -> npt.NDArray[np.float32]:
    """int32 [in, out / 8], int32 [groups, out / 8], [groups, out] -> weight [out, in]."""
    codes, zero_points = _in_order(_fields(qweight, _AWQ_BITS)), _in_order(_fields(qzeros, _AWQ_BITS))
    group_of = np.arange(len(codes)) // (len(codes) // len(scales))
    return ((codes - zero_points[group_of]) * scales.astype(np.float32)[group_of]).T.astype(np.float32)


def _fields(words: Array, bits: int) -> npt.NDArray[np.int64]:
    """[rows, words] -> [rows, words * 32 / bits], lowest bits first."""
    unsigned = np.ascontiguousarray(words).view(np.uint32).astype(np.int64)
    shifts = np.arange(0, _WORD_BITS, bits)
    return ((unsigned[:, :, None] >> shifts) & (2**bits - 1)).reshape(len(unsigned), -1)


def _in_order(fields: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    eights = fields.reshape(len(fields), -1, len(_AWQ_PLACES))
    ordered = np.empty_like(eights)
    ordered[:, :, list(_AWQ_PLACES)] = eights
    return ordered.reshape(fields.shape)
