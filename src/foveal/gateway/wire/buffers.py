"""Bodies are received into buffers that were used before: a fresh one costs a page fault per 4 KB and a pass of zeros."""

from __future__ import annotations

import sys

__all__ = ["BodyBuffers"]

_SMALL = 32 << 10
"""Below it a fresh buffer is as cheap."""


class BodyBuffers:
    """Keeps at most `max_kept` bytes of free buffers.

    A buffer is only ever handed out again when nobody else refers to it: a view kept by a cache, or a write still queued in a
    transport, must never see another client's bytes. CPython's reference count answers that; an interpreter without one
    would simply not reuse.
    """

    __slots__ = ("_free", "_kept", "max_kept")

    def __init__(self, max_kept: int) -> None:
        self.max_kept = max_kept
        self._free: list[bytearray] = []
        self._kept = 0

    @property
    def kept_bytes(self) -> int:
        return self._kept

    def take(self, num_bytes: int) -> bytearray:
        """A buffer of exactly that length, with any content."""
        if num_bytes >= _SMALL:
            free = self._free
            for at in range(len(free) - 1, -1, -1):
                # Up to a half may be cut off without the allocator moving it.
                if num_bytes <= len(free[at]) <= 2 * num_bytes:
                    buffer = free.pop(at)
                    self._kept -= sys.getsizeof(buffer)
                    if len(buffer) != num_bytes:
                        del buffer[num_bytes:]
                    return buffer
        return bytearray(num_bytes)

    def give_back(self, holder: list[bytearray]) -> None:
        """`holder` is a list with the buffer in it, the only place that should still refer to it; it is emptied."""
        buffer = holder.pop()
        # With what was cut off: that memory is still held.
        size = sys.getsizeof(buffer)
        # Two references: `buffer`, and the argument of getrefcount.
        if len(buffer) < _SMALL or self._kept + size > self.max_kept or sys.getrefcount(buffer) != 2:
            return
        self._free.append(buffer)
        self._kept += size
