"""All rendered task families and their splits.

An item is addressed by (kind, split, index). Its random stream is seeded by that address, so the splits cannot share a
stream, and any machine renders the same item.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from foveal.evaluation.tasks import bars, relations, shapes, text
from foveal.evaluation.tasks.render import render
from foveal.evaluation.tasks.scene import Question, Scene

__all__ = ["FAMILIES", "Family", "Item", "Split", "make_item", "stream"]

Split = Literal["train", "held-out"]


@dataclass(frozen=True)
class Family:
    make_scene: Callable[[random.Random], Scene]
    questions: Callable[[Scene, random.Random], list[Question]]


FAMILIES: dict[str, Family] = {
    "shapes": Family(shapes.make_scene, shapes.questions),
    "relations": Family(relations.make_scene, relations.questions),
    "text": Family(text.make_scene, text.questions),
    "bars": Family(bars.make_scene, bars.questions),
}


@dataclass(frozen=True)
class Item:
    """A picture's description with the questions asked about it."""

    kind: str
    split: Split
    index: int
    scene: Scene
    questions: tuple[Question, ...]

    def picture(self) -> Image.Image:
        return render(self.scene)


def stream(kind: str, split: Split, index: int) -> random.Random:
    """The item's own random stream."""
    return random.Random(f"foveal scenes/{kind}/{split}/{index}")


def make_item(kind: str, split: Split, index: int) -> Item:
    """The `index`-th item of a family. Raises ValueError for an unknown kind."""
    if kind not in FAMILIES:
        raise ValueError(f"unknown task family {kind!r}; known: {', '.join(FAMILIES)}")
    rng = stream(kind, split, index)
    scene = FAMILIES[kind].make_scene(rng)
    return Item(kind, split, index, scene, tuple(FAMILIES[kind].questions(scene, rng)))
