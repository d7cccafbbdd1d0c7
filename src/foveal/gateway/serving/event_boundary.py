"""Lets only whole server-sent events pass, so that an error event never lands in the middle of another one."""

from __future__ import annotations

__all__ = ["EventBoundary"]

_MAX_HELD_BYTES = 1 << 20
"""An event longer than this passes in pieces: memory stays bounded."""


class EventBoundary:
    """Feed it the stream's bytes; what it returns ends where an event ends."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def whole(self, chunk: bytes) -> bytes:
        """All complete events so far; b"" if none is."""
        # Servers write event by event: nearly every chunk ends where an event ends.
        if chunk.endswith((b"\n\n", b"\r\n\r\n")):
            if not self._held:
                return chunk
            chunk, self._held = self._held + chunk, b""
            return chunk
        held = self._held + chunk
        end = max(_behind(held, b"\n\n"), _behind(held, b"\r\n\r\n"))
        if end == 0 and len(held) > _MAX_HELD_BYTES:
            end = len(held)
        self._held = held[end:]
        return held[:end]

    def rest(self) -> bytes:
        """What is held back at the end of the stream: an event without its blank line, or b""."""
        held, self._held = self._held, b""
        return held


def _behind(data: bytes, mark: bytes) -> int:
    """Position behind the last `mark`; 0 if there is none."""
    found = data.rfind(mark)
    return 0 if found < 0 else found + len(mark)
