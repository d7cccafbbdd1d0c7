"""The orientation that a camera wrote beside the pixels. Source: EXIF 2.32, TIFF 6.0."""

from __future__ import annotations

import re
import struct

from foveal.gateway.request.image_header.source import BytesFile, ByteSource

__all__ = ["EXIF_MARK", "XMP_MARK", "TiffTags", "exif_orientation", "turns_sides", "xmp_orientation"]

EXIF_MARK = b"Exif\x00\x00"
XMP_MARK = b"http://ns.adobe.com/xap/1.0/\x00"

_ORIENTATION = 0x0112
_MOST_ENTRIES = 512
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


class TiffTags:
    """Short and long numbers of the first directory of a TIFF structure that starts at `base`."""

    def __init__(self, source: ByteSource, base: int = 0) -> None:
        """Raises ValueError or struct.error if it is not TIFF."""
        head = source.read(base, 8)
        order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(head[:4])
        if order is None:
            raise ValueError("not TIFF")
        (directory,) = struct.unpack(order + "I", head[4:8])
        (count,) = struct.unpack(order + "H", source.read(base + directory, 2))
        count = min(count, _MOST_ENTRIES)
        entries = source.read(base + directory + 2, 12 * count)
        self.numbers: dict[int, int] = {}
        for at in range(0, len(entries) - 11, 12):
            tag, kind, items = struct.unpack_from(order + "HHI", entries, at)
            if items == 1 and kind in (3, 4):
                (value,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), entries, at + 8)
                self.numbers[tag] = value

    @property
    def orientation(self) -> int | None:
        return self.numbers.get(_ORIENTATION)


def exif_orientation(payload: bytes) -> int | None:
    """Of an EXIF block, with or without its leading mark; None if it says nothing or cannot be read."""
    try:
        return TiffTags(BytesFile(payload.removeprefix(EXIF_MARK))).orientation
    except (ValueError, struct.error):
        return None


def xmp_orientation(payload: bytes) -> int | None:
    """Of an XMP packet; some programs write it there only."""
    match = _XMP.search(payload)
    return int(match[1]) if match else None


def turns_sides(orientation: int | None) -> bool:
    """True if width and height change places when the picture is shown."""
    return orientation in (5, 6, 7, 8)
