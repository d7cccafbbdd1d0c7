"""Small pictures as files and data URLs."""

from __future__ import annotations

import base64
import io

from PIL import Image

__all__ = ["data_url", "png"]


def png(color: str = "red", size: tuple[int, int] = (8, 8)) -> bytes:
    """A PNG of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def data_url(data: bytes | None = None, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(png() if data is None else data).decode()}"
