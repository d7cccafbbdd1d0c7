"""A socket of which the test is the other side."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["FakeTransport"]


class FakeTransport(asyncio.Transport):
    """Delivers nothing while reading is paused, as a real one would; what is fed then comes after `resume_reading`."""

    def __init__(self, protocol: asyncio.BaseProtocol, largest_read: int = 1 << 20) -> None:
        super().__init__()
        self.protocol: Any = protocol
        self.written = bytearray()
        self.paused = False
        self.closing = False
        self.aborted = False
        self.eof_sent = False
        self.lost = False
        self.unsent = 0
        """What get_write_buffer_size says."""
        self._largest_read = largest_read
        self._waiting = bytearray()

    # The test's side.

    def open(self) -> FakeTransport:
        self.protocol.connection_made(self)
        return self

    def feed(self, data: bytes) -> None:
        self._waiting += data
        self._deliver()

    def lose(self, error: Exception | None = None) -> None:
        if not self.lost:
            self.lost = self.closing = True
            self.protocol.connection_lost(error)

    def take_written(self) -> bytes:
        data = bytes(self.written)
        self.written.clear()
        return data

    def _deliver(self) -> None:
        while self._waiting and not (self.paused or self.closing):
            if isinstance(self.protocol, asyncio.BufferedProtocol):
                buffer = memoryview(self.protocol.get_buffer(-1))
                size = min(len(buffer), len(self._waiting), self._largest_read)
                assert size > 0, "an empty read buffer would end the connection"
                buffer[:size] = self._waiting[:size]
                del self._waiting[:size]
                buffer.release()
                self.protocol.buffer_updated(size)
            else:
                piece = bytes(self._waiting[: self._largest_read])
                del self._waiting[: self._largest_read]
                self.protocol.data_received(piece)

    # The protocol's side.

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 4711) if name == "peername" else default

    def write(self, data: Any) -> None:
        assert not self.eof_sent, "written after the end"
        self.written += data

    def writelines(self, list_of_data: Any) -> None:
        for data in list_of_data:
            self.write(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write_eof(self) -> None:
        self.eof_sent = True

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True
        asyncio.get_running_loop().call_soon(self.lose)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
        asyncio.get_running_loop().call_soon(self._deliver)
