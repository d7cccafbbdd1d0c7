"""What a rendered picture holds, and what may be asked about it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "CAPTION_REQUESTS",
    "COLOURS",
    "RGB",
    "SHAPES",
    "Question",
    "Scene",
    "Thing",
    "article",
    "in_reading_order",
    "jittered",
    "join_words",
    "light_background",
    "with_article",
]

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (220, 30, 30),
    "green": (30, 160, 50),
    "blue": (30, 60, 220),
    "yellow": (245, 215, 30),
    "black": (15, 15, 15),
    "orange": (250, 140, 20),
    "purple": (130, 40, 160),
    "pink": (250, 130, 190),
    "brown": (125, 75, 35),
    "gray": (130, 130, 130),
}
SHAPES = ("circle", "square", "triangle", "star")


@dataclass(frozen=True)
class Thing:
    """One drawn thing. Lengths are fractions of the picture's side; (x, y) is its centre, y grows downwards."""

    form: str
    colour: str
    rgb: RGB
    x: float
    y: float
    width: float
    height: float
    label: str = ""
    tilt_degrees: float = 0.0
    stroke: int = 0


@dataclass(frozen=True)
class Scene:
    """A picture's full description: the answer to every question follows from it."""

    kind: str
    things: tuple[Thing, ...]
    background: RGB


@dataclass(frozen=True)
class Question:
    """One question with its exact answer; `task` names the row of the accuracy table it counts in."""

    task: str
    text: str
    answer: str


def jittered(colour: str, rng: random.Random) -> RGB:
    """A shade near the named colour."""
    red, green, blue = (max(0, min(255, value + rng.randint(-14, 14))) for value in COLOURS[colour])
    return red, green, blue


def light_background(rng: random.Random) -> RGB:
    return rng.randint(226, 255), rng.randint(226, 255), rng.randint(226, 255)


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def with_article(words: str) -> str:
    return f"{article(words)} {words}"


def join_words(words: Sequence[str]) -> str:
    """`["a", "b", "c"]` -> `"a, b and c"`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def in_reading_order(things: Sequence[Thing], rows: int = 8) -> list[Thing]:
    """Row by row, left to right, with rows as tall as one vision patch (the picture is `rows` patches high)."""
    return sorted(things, key=lambda thing: (int(thing.y * rows), thing.x))


CAPTION_REQUESTS = (
    "Describe the image.",
    "Describe this picture.",
    "What is in the image?",
    "What do you see?",
    "Write a caption for this image.",
)
