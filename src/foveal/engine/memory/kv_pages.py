"""Gives the pages of unused KV blocks back to the operating system."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import torch

from foveal.kernels.attention_batch import KVCache

__all__ = ["release_pages", "runs_of"]

_MADV_DONTNEED = 4


@cache
def _libc() -> Any:
    """None where there is no madvise with Linux's meaning: elsewhere the call may keep the pages."""
    try:
        return ctypes.CDLL(None, use_errno=True) if hasattr(mmap, "MADV_DONTNEED") else None
    except OSError:
        return None


def runs_of(blocks: Iterable[int]) -> Iterator[tuple[int, int]]:
    """[first, end) of consecutive numbers."""
    first = end = -1
    for block in sorted(blocks):
        if block != end:
            if end > first:
                yield first, end
            first = block
        end = block + 1
    if end > first:
        yield first, end


def release_pages(cache: KVCache, blocks: Sequence[int]) -> int:
    """Bytes given back. The blocks' content is lost: they must belong to nobody. They read as zeros and take memory
    again only when they are written."""
    if _libc() is None or cache.key.device.type != "cpu":
        return 0
    runs = list(runs_of(blocks))
    return sum(_release(layer, run, cache.block_size) for tensor in cache.tensors for layer in tensor for run in runs)


def _release(layer: torch.Tensor, run: tuple[int, int], block_size: int) -> int:
    """`layer` [slots, ...] is contiguous. Pages that other blocks share stay."""
    slot_bytes = layer.stride(0) * layer.itemsize
    start = layer.data_ptr() + run[0] * block_size * slot_bytes
    end = layer.data_ptr() + run[1] * block_size * slot_bytes
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    length = end // mmap.PAGESIZE * mmap.PAGESIZE - first
    if length <= 0:
        return 0
    failed = _libc().madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), _MADV_DONTNEED)
    return 0 if failed else length
