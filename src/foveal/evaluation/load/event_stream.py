"""Server-sent events, as they trickle in."""

from __future__ import annotations

__all__ = ["EventStream"]


class EventStream:
    """Cuts a byte stream into the `data` of its events. Source: WHATWG HTML, 9.2 Server-sent events."""

    def __init__(self) -> None:
        self._pending = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """Data of the events completed by `chunk`; lines other than `data:` are passed over."""
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        complete: list[bytes] = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                complete.append(b"\n".join(self._data))
                self._data = []
        return complete
