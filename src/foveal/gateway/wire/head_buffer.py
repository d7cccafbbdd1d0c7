"""The bytes of a head, collected until its empty line is there."""

from __future__ import annotations

from foveal.gateway.wire.head import HeadError

__all__ = ["HeadBuffer"]

_END = b"\r\n\r\n"


class HeadBuffer:
    """Nearly always a head comes in one read and is never copied; only a part of one is kept."""

    __slots__ = ("_partial",)

    def __init__(self) -> None:
        self._partial = bytearray()

    def __len__(self) -> int:
        """Bytes kept of a head whose end has not come."""
        return len(self._partial)

    def clear(self) -> None:
        self._partial = bytearray()

    def take(self, data: bytearray, end: int, max_head: int) -> tuple[memoryview, memoryview] | None:
        """`data[:end]` came. The head and what follows it, or None if more is needed. Raises HeadError (431)."""
        seen = 0
        if self._partial:
            # The end of the head may lie across the border.
            seen = max(0, len(self._partial) - 3)
            self._partial += memoryview(data)[:end]
            data, end = self._partial, len(self._partial)
        start = 0
        if data.startswith(b"\r\n"):
            # Some clients send an empty line after a body (RFC 9112, 2.2).
            start = 2
            seen = max(seen, 2)
        stop = data.find(_END, seen, end)
        if (end if stop < 0 else stop + 4) - start > max_head:
            raise HeadError(431, f"the request head is larger than {max_head} bytes; send fewer or shorter fields")
        if stop < 0:
            if data is not self._partial:
                self._partial = bytearray(memoryview(data)[:end])
            return None
        view = memoryview(data)
        if data is self._partial:
            self._partial = bytearray()
        return view[start : stop + 4], view[stop + 4 : end]
