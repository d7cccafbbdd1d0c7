"""What to show instead of the right picture."""

from __future__ import annotations

import random
from collections.abc import Sequence

from PIL import Image

__all__ = ["blank_picture", "partners", "shuffled_picture"]

GRID = 8


def blank_picture(picture: Image.Image) -> Image.Image:
    """White, of the same size: the same number of image tokens."""
    return Image.new("RGB", picture.size, (255, 255, 255))


def shuffled_picture(picture: Image.Image, seed: int, grid: int = GRID) -> Image.Image:
    """The same pixels with `grid` x `grid` tiles in another order: colours stay, things and places do not.

    Rows and columns that the grid does not divide stay where they are. A tile may keep its place by chance.
    """
    width, height = picture.width // grid, picture.height // grid
    if not width or not height:
        return blank_picture(picture)
    corners = [(column * width, row * height) for row in range(grid) for column in range(grid)]
    order = random.Random(f"shuffled tiles/{seed}").sample(corners, len(corners))
    shuffled = picture.copy()
    for (x, y), (from_x, from_y) in zip(corners, order, strict=True):
        shuffled.paste(picture.crop((from_x, from_y, from_x + width, from_y + height)), (x, y))
    return shuffled


def partners(kinds: Sequence[str]) -> list[int]:
    """For each item the next one of its kind, round and round: another picture that the same question could be about.

    An item that is the only one of its kind gets the next item of any kind.
    """
    places: dict[str, list[int]] = {}
    for index, kind in enumerate(kinds):
        places.setdefault(kind, []).append(index)
    following: dict[int, int] = {}
    for group in places.values():
        following |= dict(zip(group, group[1:] + group[:1], strict=True))
    return [other if other != index else (index + 1) % len(kinds) for index, other in sorted(following.items())]
