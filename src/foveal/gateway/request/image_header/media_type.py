"""The media type of a picture file, from its first bytes: what a server declared is not believed."""

from __future__ import annotations

__all__ = ["media_type"]

_STARTS = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG", "image/png"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
)


def media_type(data: bytes) -> str:
    for start, kind in _STARTS:
        if data.startswith(start):
            return kind
    if data[:4] == b"RIFF":
        return "image/webp"
    return "image/avif" if data[4:8] == b"ftyp" else "application/octet-stream"
