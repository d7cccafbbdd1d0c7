"""Width and height of a picture file from a few of its bytes. Nothing is decoded."""

from __future__ import annotations

import struct

import msgspec

from foveal.gateway.request.image_header.avif import avif_size
from foveal.gateway.request.image_header.exif import TiffTags, turns_sides
from foveal.gateway.request.image_header.gif import gif_size
from foveal.gateway.request.image_header.jpeg import jpeg_size
from foveal.gateway.request.image_header.png import png_size
from foveal.gateway.request.image_header.source import ByteSource
from foveal.gateway.request.image_header.webp import webp_size

__all__ = ["image_size"]

_WIDTH, _HEIGHT = 256, 257


def image_size(source: ByteSource) -> tuple[int, int] | None:
    """(width, height) as a viewer shows the picture: EXIF orientation may swap the stored sides.

    JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF; None for anything else and for a damaged header.
    """
    try:
        size = _size(source)
    except (ValueError, struct.error, IndexError, msgspec.MsgspecError, UnicodeError):
        return None
    return size if size is not None and min(size) > 0 else None


def _size(source: ByteSource) -> tuple[int, int] | None:
    head = source.read(0, 16)
    if head.startswith(b"\xff\xd8\xff"):
        return jpeg_size(source)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return png_size(source)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return webp_size(source)
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return gif_size(source)
    if head[:2] == b"BM":
        return _bmp_size(source)
    if head[:4] in (b"II*\x00", b"MM\x00*"):
        return _tiff_size(source)
    if head[4:8] == b"ftyp":
        return avif_size(source)
    return None


def _bmp_size(source: ByteSource) -> tuple[int, int] | None:
    """Heights are negative where rows run downwards."""
    fields = source.read(14, 12)
    if len(fields) < 12:
        return None
    (header_bytes,) = struct.unpack_from("<I", fields)
    if header_bytes == 12:
        return struct.unpack_from("<HH", fields, 4)
    width, height = struct.unpack_from("<ii", fields, 4)
    return width, abs(height)


def _tiff_size(source: ByteSource) -> tuple[int, int] | None:
    tags = TiffTags(source)
    size = tags.numbers.get(_WIDTH, 0), tags.numbers.get(_HEIGHT, 0)
    return (size[1], size[0]) if turns_sides(tags.orientation) else size
