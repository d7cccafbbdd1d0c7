"""One to five coloured shapes: colour, shape, existence, counting, captions."""

from __future__ import annotations

import random

from foveal.evaluation.tasks.scene import (
    CAPTION_REQUESTS,
    COLOURS,
    SHAPES,
    Question,
    Scene,
    Thing,
    in_reading_order,
    jittered,
    join_words,
    light_background,
    with_article,
)

__all__ = ["caption", "make_scene", "place", "questions", "shape_at"]

MAX_SHAPES = 5
_SIDE = 224


def make_scene(rng: random.Random) -> Scene:
    number = rng.randint(1, MAX_SHAPES)
    spots = place(number, 17, 30 if number > 1 else 44, rng)
    colours = rng.sample(sorted(COLOURS), rng.choice((1, 2, 3)))
    shapes = rng.sample(SHAPES, rng.choice((1, 2, 3)))
    things = tuple(shape_at(rng.choice(shapes), rng.choice(colours), spot, rng) for spot in spots)
    return Scene("shapes", things, light_background(rng))


def shape_at(form: str, colour: str, spot: tuple[float, float, float], rng: random.Random) -> Thing:
    """A shape centred at `spot` = (x, y, radius), in pixels of a 224-pixel picture."""
    x, y, radius = spot
    extent = 2 * radius / _SIDE * (0.88 if form == "square" else 1.0)
    return Thing(form, colour, jittered(colour, rng), x / _SIDE, y / _SIDE, extent, extent)


def place(number: int, smallest: float, largest: float, rng: random.Random) -> list[tuple[float, float, float]]:
    """`number` circles (x, y, radius) inside the picture that do not touch."""
    for _ in range(400):
        spots: list[tuple[float, float, float]] = []
        for _ in range(number * 60):
            radius = rng.uniform(smallest, largest)
            x, y = (rng.uniform(radius + 4, _SIDE - radius - 4) for _ in range(2))
            if all((x - a) ** 2 + (y - b) ** 2 > (1.15 * (radius + c) + 3) ** 2 for a, b, c in spots):
                spots.append((x, y, radius))
            if len(spots) == number:
                return spots
    raise RuntimeError(f"could not place {number} shapes of radius {smallest}-{largest} in a {_SIDE} pixel picture")


def caption(scene: Scene) -> str:
    """`a red circle`, or `3 shapes: a red circle, ...` in reading order."""
    names = [with_article(f"{thing.colour} {thing.form}") for thing in in_reading_order(scene.things)]
    return names[0] if len(names) == 1 else f"{len(names)} shapes: {join_words(names)}"


def questions(scene: Scene, rng: random.Random) -> list[Question]:
    """All tasks over this scene, several wordings each; the caller takes a sample."""
    things = scene.things
    asked = [
        Question("caption_shapes", rng.choice(CAPTION_REQUESTS), caption(scene)),
        Question(
            "count",
            rng.choice(
                (
                    "How many shapes are there?",
                    "How many objects are in the image?",
                    "Count the shapes.",
                    "What is the number of shapes?",
                )
            ),
            str(len(things)),
        ),
    ]
    asked += _counting(scene, rng)
    asked += _existence(scene, rng)
    asked += _naming(scene, rng)
    return asked


def _counting(scene: Scene, rng: random.Random) -> list[Question]:
    present_colours = sorted({thing.colour for thing in scene.things})
    present_forms = sorted({thing.form for thing in scene.things})
    colours = present_colours + rng.sample([c for c in COLOURS if c not in present_colours], 1)
    forms = present_forms + [f for f in SHAPES if f not in present_forms][:1]
    asked = []
    for colour in colours:
        number = sum(thing.colour == colour for thing in scene.things)
        text = rng.choice((f"How many {colour} shapes are there?", f"How many shapes are {colour}?"))
        asked.append(Question("count_color", text, str(number)))
    for form in forms:
        number = sum(thing.form == form for thing in scene.things)
        text = rng.choice((f"How many {form}s are there?", f"Count the {form}s.", f"How many {form}s do you see?"))
        asked.append(Question("count_shape", text, str(number)))
    return asked


def _existence(scene: Scene, rng: random.Random) -> list[Question]:
    present = {thing.form for thing in scene.things}, {thing.colour for thing in scene.things}
    pairs = {(thing.form, thing.colour) for thing in scene.things}

    def ask(noun: str, there: bool) -> Question:
        named = with_article(noun)
        text = rng.choice((f"Is there {named} in the image?", f"Is there {named}?", f"Does the image contain {named}?"))
        return Question("exists", text, "yes" if there else "no")

    asked = []
    for there in (True, False):
        forms = [form for form in SHAPES if (form in present[0]) == there]
        if forms:
            asked.append(ask(rng.choice(forms), there))
        colours = [colour for colour in COLOURS if (colour in present[1]) == there]
        if colours:
            asked.append(ask(f"{rng.choice(colours)} shape", there))
    form, colour = rng.choice(sorted(pairs))
    asked.append(ask(f"{colour} {form}", True))
    mixed = [(f, c) for f in sorted(present[0]) for c in sorted(present[1]) if (f, c) not in pairs]
    form, colour = rng.choice(mixed or [(form, rng.choice([c for c in COLOURS if c not in present[1]]))])
    asked.append(ask(f"{colour} {form}", False))
    return asked


def _naming(scene: Scene, rng: random.Random) -> list[Question]:
    asked = []
    forms = [thing.form for thing in scene.things]
    colours = [thing.colour for thing in scene.things]
    for thing in scene.things:
        if forms.count(thing.form) == 1:
            text = rng.choice((f"What color is the {thing.form}?", f"What is the colour of the {thing.form}?"))
            asked.append(Question("color", text, thing.colour))
        if colours.count(thing.colour) == 1:
            text = rng.choice((f"What shape is the {thing.colour} object?", f"What is the {thing.colour} shape?"))
            asked.append(Question("shape", text, thing.form))
    if len(scene.things) > 1 and len(set(colours)) == 1:
        asked.append(Question("color", rng.choice(("What color are the shapes?", "What colour is used?")), colours[0]))
    return asked
