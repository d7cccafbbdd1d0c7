"""Where header bytes come from: a file, or any few bytes of a data URL."""

from __future__ import annotations

from typing import Protocol

__all__ = ["ByteSource", "BytesFile"]


class ByteSource(Protocol):
    def read(self, offset: int, count: int) -> bytes:
        """Bytes [offset, offset + count), fewer at the end."""
        ...


class BytesFile:
    """A file in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, offset: int, count: int) -> bytes:
        return self._data[offset : offset + count]
