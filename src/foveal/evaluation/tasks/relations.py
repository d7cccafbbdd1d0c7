"""Two different shapes: which is left of, right of, above or below the other."""

from __future__ import annotations

import random

from foveal.evaluation.tasks import shapes
from foveal.evaluation.tasks.scene import (
    CAPTION_REQUESTS,
    COLOURS,
    SHAPES,
    Question,
    Scene,
    Thing,
    light_background,
)

__all__ = ["make_scene", "questions", "relation"]

OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
PHRASE = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}
_CLEAR_MARGIN_PIXELS = 30


def make_scene(rng: random.Random) -> Scene:
    """Two shapes with different forms and colours, apart along one axis clearly more than along the other."""
    while True:
        spots = shapes.place(2, 20, 40, rng)
        across, down = (abs(spots[0][axis] - spots[1][axis]) for axis in (0, 1))
        if abs(across - down) > _CLEAR_MARGIN_PIXELS:
            break
    forms, colours = rng.sample(SHAPES, 2), rng.sample(sorted(COLOURS), 2)
    things = tuple(shapes.shape_at(f, c, s, rng) for f, c, s in zip(forms, colours, spots, strict=True))
    return Scene("relations", things, light_background(rng))


def relation(thing: Thing, other: Thing) -> str:
    """Where `thing` is, seen from `other`: left, right, above or below, along the axis that separates them more."""
    across, down = thing.x - other.x, thing.y - other.y
    if abs(across) > abs(down):
        return "left" if across < 0 else "right"
    return "above" if down < 0 else "below"


def questions(scene: Scene, rng: random.Random) -> list[Question]:
    first, second = scene.things
    asked = [Question("caption_shapes", rng.choice(CAPTION_REQUESTS), shapes.caption(scene))]
    for thing, other in ((first, second), (second, first)):
        a, b = _names(thing, other, rng)
        truth = relation(thing, other)
        asked.append(
            Question(
                "relation",
                rng.choice(
                    (
                        f"Where is the {a} relative to the {b}: left, right, above or below?",
                        f"Is the {a} left, right, above or below the {b}?",
                        f"On which side of the {b} is the {a}: left, right, above or below?",
                    )
                ),
                truth,
            )
        )
        for claim in (truth, OPPOSITE[truth]):
            a, b = _names(thing, other, rng)
            text = f"Is the {a} {PHRASE[claim]} the {b}?"
            asked.append(Question("relation_yes_no", text, "yes" if claim == truth else "no"))
        asked.append(_side(thing, truth, rng))
        asked.append(Question("color", f"What color is the {thing.form}?", thing.colour))
        asked.append(Question("shape", f"What shape is the {thing.colour} object?", thing.form))
    return asked


def _names(thing: Thing, other: Thing, rng: random.Random) -> tuple[str, str]:
    match rng.randrange(3):
        case 0:
            return thing.form, other.form
        case 1:
            return f"{thing.colour} shape", f"{other.colour} shape"
        case _:
            return f"{thing.colour} {thing.form}", f"{other.colour} {other.form}"


def _side(thing: Thing, truth: str, rng: random.Random) -> Question:
    place = {"left": "on the left", "right": "on the right", "above": "at the top", "below": "at the bottom"}[truth]
    match rng.randrange(3):
        case 0:
            return Question("which_side", f"What color is the shape {place}?", thing.colour)
        case 1:
            return Question("which_side", f"Which shape is {place}?", thing.form)
        case _:
            return Question("which_side", f"What is {place}?", f"{thing.colour} {thing.form}")
