"""Memory for packed weights in pages of 2 MiB, where the system has them.

A step reads every weight once. With pages of 4 KiB the processor looks up an address for each 64 lines that it reads;
with large ones reading is about a tenth faster.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from threading import Lock

import torch

__all__ = ["in_large_pages"]

_CHUNK = 64 << 20
_LINE = 64  # a load that straddles two cache lines costs two


class _Arena:
    """Hands out pieces of large mappings; a mapping lives as long as one of its pieces."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._chunk = torch.empty(0, dtype=torch.uint8)
        self._used = 0

    def take(self, size: int) -> torch.Tensor:
        """uint8 [size], starting on a cache line."""
        with self._lock:
            if self._used + size > len(self._chunk):
                mapping = mmap.mmap(-1, max(_CHUNK, -(-size // _CHUNK) * _CHUNK))
                with suppress(AttributeError, OSError):  # not every system, and not every kernel, has them
                    mapping.madvise(mmap.MADV_HUGEPAGE)
                self._chunk, self._used = torch.frombuffer(mapping, dtype=torch.uint8), 0
            piece = self._chunk[self._used : self._used + size]
            self._used += -(-size // _LINE) * _LINE
            return piece


_arena = _Arena()


def in_large_pages(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of `tensor`, uint8 [nbytes], copied there."""
    return _arena.take(tensor.nbytes).copy_(tensor.contiguous().reshape(-1).view(torch.uint8))
