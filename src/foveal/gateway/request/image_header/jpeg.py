"""JPEG: segments up to the first frame header. Source: ITU T.81, annex B."""

from __future__ import annotations

import struct

from foveal.gateway.request.image_header.exif import (
    EXIF_MARK,
    XMP_MARK,
    exif_orientation,
    turns_sides,
    xmp_orientation,
)
from foveal.gateway.request.image_header.source import ByteSource

__all__ = ["jpeg_size"]

_MOST_SEGMENTS = 1000
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})


def jpeg_size(source: ByteSource) -> tuple[int, int] | None:
    """(width, height) as shown. Application segments (thumbnails, colour profiles) are jumped over, not read."""
    at = 2
    orientation: int | None = None
    xmp: int | None = None
    for _ in range(_MOST_SEGMENTS):
        head = source.read(at, 4)
        if len(head) < 4:
            return None
        if head[0] != 0xFF:
            at += 1  # garbage between segments: decoders skip it
            continue
        marker = head[1]
        if marker in (0xFF, 0x00):
            at += 1
            continue
        if marker in _ALONE:
            at += 2
            continue
        if marker in (0xD9, 0xDA):
            return None
        (length,) = struct.unpack(">H", head[2:])
        if marker in _FRAMES:
            frame = source.read(at + 5, 4)
            if len(frame) < 4:
                return None
            height, width = struct.unpack(">HH", frame)
            swapped = turns_sides(xmp if orientation is None else orientation)
            return (height, width) if swapped else (width, height)
        if marker == 0xE1 and length > 8:
            if orientation is None and source.read(at + 4, 6) == EXIF_MARK:
                orientation = exif_orientation(source.read(at + 10, length - 8))
            elif xmp is None and source.read(at + 4, len(XMP_MARK)) == XMP_MARK:
                xmp = xmp_orientation(source.read(at + 4, length - 2))
        at += 2 + max(length, 2)
    return None
