"""What a request may hold at most. Checked on headers, before a backend sees it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RequestLimits"]

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    max_images: int = 64
    """Per request."""
    max_image_bytes: int = 32 * MIB
    """Of one encoded image."""
    max_image_pixels: int = 100_000_000
    """Width times height of one image: a small file may unpack to a huge picture."""
    max_parts: int = 20_000
    """Messages and parts of messages together."""
    max_text_bytes: int = 8 * MIB
    """Of a body without its data URLs: what has to be parsed."""
