"""AVIF: the largest `ispe` property, turned by `irot`. Source: ISO/IEC 23008-12, 6.5.3 and 6.5.10."""

from __future__ import annotations

import struct

from foveal.gateway.request.image_header.source import ByteSource

__all__ = ["avif_size"]

_MOST_META_BYTES = 64 * 1024


def avif_size(source: ByteSource) -> tuple[int, int] | None:
    at = 0
    for _ in range(16):
        head = source.read(at, 8)
        if len(head) < 8:
            return None
        length, kind = struct.unpack(">I4s", head)
        if kind == b"meta":
            return _from_properties(source.read(at + 8, min(length, _MOST_META_BYTES)))
        if length < 8:
            return None
        at += length
    return None


def _from_properties(meta: bytes) -> tuple[int, int] | None:
    # A picture of several tiles has the size of a tile too: the picture's own is the largest.
    sizes: list[tuple[int, int]] = []
    at = meta.find(b"ispe")
    while at >= 0 and at + 16 <= len(meta):
        sizes.append(struct.unpack_from(">II", meta, at + 8))
        at = meta.find(b"ispe", at + 4)
    if not sizes:
        return None
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    turn = meta.find(b"irot")
    turned = 0 <= turn < len(meta) - 4 and meta[turn + 4] & 1
    return (height, width) if turned else (width, height)
