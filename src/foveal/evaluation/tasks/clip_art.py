"""Clip-art with weak category labels: the folders of the Open Clip Art Library (public domain).

Source: Debian package `openclipart-png`, folder `usr/share/openclipart/png`. A picture's category is the folder it is in.
Read for training and evaluation only; nothing of it is shipped.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from foveal.evaluation.tasks.scene import CAPTION_REQUESTS, Question, with_article

__all__ = ["ClipArtItem", "category_phrase", "read_clip_art"]

CATEGORY_OF_FOLDER = {
    "animals": "animal",
    "food": "food",
    "plants": "plant",
    "transportation": "vehicle",
    "buildings": "building",
    "people": "person",
}
FLAG_FOLDERS = ("flags",)
_HELD_OUT_SHARE = 8
_MOST_PIXELS = 9_000_000


@dataclass(frozen=True)
class ClipArtItem:
    path: Path
    category: str
    questions: tuple[Question, ...]

    def picture(self) -> Image.Image:
        """The drawing on white, as a square RGB picture."""
        drawing = Image.open(self.path).convert("RGBA")
        drawing.thumbnail((448, 448))
        side = max(drawing.size)
        square = Image.new("RGBA", (side, side), (255, 255, 255, 255))
        square.alpha_composite(drawing, ((side - drawing.width) // 2, (side - drawing.height) // 2))
        return square.convert("RGB")


def category_phrase(category: str) -> str:
    return category if category == "food" else with_article(category)


def read_clip_art(root: Path, split: Literal["train", "held-out"], most_per_category: int = 400) -> list[ClipArtItem]:
    """Items of a split, ordered by a hash of the name so that any prefix is a fair sample.

    One picture in eight is held out, chosen by the same hash. Duplicates across folders share a file name, so they fall
    into the same split; names that occur under several categories are left out.
    """
    found: dict[str, set[str]] = {}
    paths: dict[str, Path] = {}
    for path in sorted(root.rglob("*.png")):
        folders = path.relative_to(root).parts[:-1]
        category = "flag" if any(f in FLAG_FOLDERS for f in folders) else CATEGORY_OF_FOLDER.get(folders[0])
        if category is None or "furniture" in folders:
            continue
        found.setdefault(path.name, set()).add(category)
        paths[path.name] = path
    items: list[ClipArtItem] = []
    taken: dict[str, int] = {}
    for name in sorted(paths, key=_name_hash):
        if len(found[name]) > 1 or (_name_hash(name) % _HELD_OUT_SHARE == 0) != (split == "held-out"):
            continue
        if not _is_reasonable(paths[name]):
            continue
        category = next(iter(found[name]))
        taken[category] = taken.get(category, 0) + 1
        if taken[category] <= most_per_category:
            items.append(ClipArtItem(paths[name], category, _questions(category, _name_hash(name))))
    return items


def _is_reasonable(path: Path) -> bool:
    """A few drawings of the library have hundreds of megapixels; they are left out, as are unreadable ones."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as drawing:
                return drawing.width * drawing.height <= _MOST_PIXELS
    except (OSError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return False


def _name_hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])


def _questions(category: str, salt: int) -> tuple[Question, ...]:
    kinds = "an animal, a plant, food, a vehicle, a building, a person or a flag"
    phrase = category_phrase(category)
    return (
        Question("category", f"What kind of thing is this: {kinds}?", phrase),
        Question("category", "What kind of thing is this?", phrase),
        Question("caption_category", CAPTION_REQUESTS[salt % len(CAPTION_REQUESTS)], f"a drawing of {phrase}"),
    )
