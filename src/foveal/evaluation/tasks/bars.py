"""Bar charts of two to five coloured bars without labels: how many, which is tallest, which is shortest."""

from __future__ import annotations

import itertools
import random

from foveal.evaluation.tasks.scene import (
    CAPTION_REQUESTS,
    COLOURS,
    Question,
    Scene,
    Thing,
    jittered,
    join_words,
    light_background,
    with_article,
)

__all__ = ["FLOOR", "caption", "make_scene", "questions"]

MAX_BARS = 5
FLOOR = 202 / 224
_CLEAR_MARGIN_PIXELS = 16


def make_scene(rng: random.Random) -> Scene:
    """Bars stand on one floor, left to right; any two heights differ by at least 16 of 224 pixels."""
    number = rng.randint(2, MAX_BARS)
    colours = rng.sample(sorted(COLOURS), number)
    while True:
        heights = [rng.randint(20, 170) for _ in range(number)]
        ordered = sorted(heights)
        if all(b - a >= _CLEAR_MARGIN_PIXELS for a, b in itertools.pairwise(ordered)):
            break
    pitch = 184 / number
    width = pitch * rng.uniform(0.5, 0.8)
    things = []
    for index, (colour, height) in enumerate(zip(colours, heights, strict=True)):
        x = (30 + index * pitch + width / 2) / 224
        things.append(
            Thing(
                "bar",
                colour,
                jittered(colour, rng),
                x,
                FLOOR - height / 448,
                width / 224,
                height / 224,
            )
        )
    return Scene("bars", tuple(things), light_background(rng))


def questions(scene: Scene, rng: random.Random) -> list[Question]:
    bars = scene.things
    tallest, shortest = (pick(bars, key=lambda bar: bar.height) for pick in (max, min))
    most = rng.sample(
        ("Which bar is the tallest?", "What color is the tallest bar?", "Which color has the highest value?"), 2
    )
    least = rng.sample(
        ("Which bar is the shortest?", "What color is the shortest bar?", "Which color has the lowest value?"), 2
    )
    asked = [
        Question(
            "bar_count",
            rng.choice(("How many bars are there?", "How many bars does the chart have?", "Count the bars.")),
            str(len(bars)),
        ),
        *(Question("bar_tallest", text, tallest.colour) for text in most),
        *(Question("bar_shortest", text, shortest.colour) for text in least),
        Question("caption_bars", rng.choice(CAPTION_REQUESTS), caption(scene)),
    ]
    for _ in range(2):
        a, b = rng.sample(bars, 2)
        text = rng.choice(
            (f"Is the {a.colour} bar taller than the {b.colour} bar?", f"Is {a.colour} higher than {b.colour}?")
        )
        asked.append(Question("bar_compare", text, "yes" if a.height > b.height else "no"))
    present = [bar.colour for bar in bars]
    there = rng.random() < 0.5
    colour = rng.choice([c for c in COLOURS if (c in present) == there])
    asked.append(Question("exists", f"Is there {with_article(colour)} bar?", "yes" if there else "no"))
    return asked


def caption(scene: Scene) -> str:
    """Names the bars' colours from left to right."""
    return f"a bar chart with {len(scene.things)} bars: {join_words([bar.colour for bar in scene.things])}"
