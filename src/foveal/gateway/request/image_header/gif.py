"""GIF: the logical screen, widened where the first frame is larger, as decoders do. Source: GIF89a, sec. 18-20."""

from __future__ import annotations

import struct

from foveal.gateway.request.image_header.source import ByteSource

__all__ = ["gif_size"]

_MOST_BLOCKS = 256


def gif_size(source: ByteSource) -> tuple[int, int] | None:
    head = source.read(6, 5)
    if len(head) < 5:
        return None
    width, height, flags = struct.unpack("<HHB", head)
    frame = _first_frame(source, 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0))
    return (max(width, frame[0]), max(height, frame[1])) if frame else (width, height)


def _first_frame(source: ByteSource, at: int) -> tuple[int, int] | None:
    """(right, bottom) of the first frame."""
    in_extension = False
    for _ in range(_MOST_BLOCKS):
        if in_extension:
            length = source.read(at, 1)
            if not length:
                return None
            at += 1 + length[0]
            in_extension = length[0] != 0
            continue
        mark = source.read(at, 1)
        if mark == b"!":
            at += 2
            in_extension = True
        elif mark == b",":
            place = source.read(at + 1, 8)
            if len(place) < 8:
                return None
            left, top, width, height = struct.unpack("<HHHH", place)
            return left + width, top + height
        else:
            return None
    return None
