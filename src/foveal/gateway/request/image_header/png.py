"""PNG: the IHDR chunk, and eXIf where there is one before the pixels. Source: PNG 3rd edition, ch. 5 and 11."""

from __future__ import annotations

import struct

from foveal.gateway.request.image_header.exif import exif_orientation, turns_sides
from foveal.gateway.request.image_header.source import ByteSource

__all__ = ["png_size"]

_MOST_CHUNKS = 64


def png_size(source: ByteSource) -> tuple[int, int] | None:
    at = 8
    size: tuple[int, int] | None = None
    for _ in range(_MOST_CHUNKS):
        head = source.read(at, 8)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IHDR":
            fields = source.read(at + 8, 8)
            if len(fields) < 8:
                return None
            size = struct.unpack(">II", fields)
        elif kind in (b"IDAT", b"IEND"):
            break
        elif kind == b"eXIf" and size is not None:
            if turns_sides(exif_orientation(source.read(at + 8, length))):
                size = size[1], size[0]
            break
        at += 12 + length
    return size
