"""WebP: lossy, lossless and extended. Source: RFC 9649."""

from __future__ import annotations

import struct

from foveal.gateway.request.image_header.exif import exif_orientation, turns_sides
from foveal.gateway.request.image_header.source import ByteSource

__all__ = ["webp_size"]

_HAS_EXIF = 0x08
_MOST_CHUNKS = 256


def webp_size(source: ByteSource) -> tuple[int, int] | None:
    head = source.read(12, 18)
    if len(head) < 18:
        return None
    kind = head[:4]
    if kind == b"VP8X":
        width = int.from_bytes(head[12:15], "little") + 1
        height = int.from_bytes(head[15:18], "little") + 1
        if head[8] & _HAS_EXIF and turns_sides(_orientation(source)):
            return height, width
        return width, height
    if kind == b"VP8L":
        bits = int.from_bytes(head[9:13], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", head[14:18])
        return width & 0x3FFF, height & 0x3FFF
    return None


def _orientation(source: ByteSource) -> int | None:
    """The EXIF chunk stands behind the pixels: chunks are jumped over."""
    at = 12
    for _ in range(_MOST_CHUNKS):
        head = source.read(at, 8)
        if len(head) < 8:
            return None
        kind, length = struct.unpack("<4sI", head)
        if kind == b"EXIF":
            return exif_orientation(source.read(at + 8, length))
        at += 8 + length + (length & 1)
    return None
