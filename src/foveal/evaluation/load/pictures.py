"""Pictures for requests: drawn at random, or from a directory; some of them repeated."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pybase64
from PIL import Image, ImageDraw

from foveal.core.errors import ConfigurationError

__all__ = ["PictureSource", "directory_pictures", "random_pictures"]

MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
}

NUM_SHAPES = 24
"""Per random picture: enough that no two are alike, few enough that PNG stays small and fast to make."""

MAX_REMEMBERED = 64
"""Reuse picks among the latest so many pictures, like a user who asks again about what he just sent."""


class PictureSource:
    """Yields data URLs; with probability `reuse` one that was sent before."""

    def __init__(self, fresh: Callable[[random.Random], str], reuse: float = 0.0) -> None:
        if not 0.0 <= reuse <= 1.0:
            raise ConfigurationError(f"the fraction of reused images is {reuse:g}; it must be between 0 and 1")
        self._fresh = fresh
        self._reuse = reuse
        self._sent: list[str] = []

    def next(self, rng: random.Random) -> str:
        """A `data:image/...;base64,...` URL."""
        if self._sent and rng.random() < self._reuse:
            return rng.choice(self._sent)
        url = self._fresh(rng)
        self._sent = [*self._sent[-(MAX_REMEMBERED - 1) :], url]
        return url


def random_pictures(width: int, height: int) -> Callable[[random.Random], str]:
    """Rectangles and ellipses of random colours as PNG of `width` x `height` pixels."""
    if not (1 <= width <= 16384 and 1 <= height <= 16384):
        raise ConfigurationError(f"the image size is {width}x{height}; each side must be between 1 and 16384 pixels")

    def draw(rng: random.Random) -> str:
        image = Image.new("RGB", (width, height), _colour(rng))
        canvas = ImageDraw.Draw(image)
        for _ in range(NUM_SHAPES):
            left, right = sorted((rng.randint(0, width), rng.randint(0, width)))
            top, bottom = sorted((rng.randint(0, height), rng.randint(0, height)))
            shape = rng.choice((canvas.rectangle, canvas.ellipse))
            shape((left, top, right, bottom), fill=_colour(rng))
        buffer = io.BytesIO()
        image.save(buffer, format="PNG", compress_level=1)
        return _data_url("image/png", buffer.getvalue())

    return draw


def directory_pictures(directory: Path) -> Callable[[random.Random], str]:
    """Random picture files of a directory, as they are. Raises ConfigurationError if it holds none."""
    paths = sorted(p for p in directory.iterdir() if p.suffix.lower() in MEDIA_TYPES) if directory.is_dir() else []
    if not paths:
        raise ConfigurationError(
            f"{directory} holds no pictures ({', '.join(sorted(MEDIA_TYPES))}); name a directory that does, "
            "or use --images random"
        )
    return lambda rng: _read(rng.choice(paths))


@lru_cache(maxsize=MAX_REMEMBERED)
def _read(path: Path) -> str:
    return _data_url(MEDIA_TYPES[path.suffix.lower()], path.read_bytes())


def _data_url(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{pybase64.b64encode(data).decode()}"


def _colour(rng: random.Random) -> tuple[int, int, int]:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)
