"""One coloured digit, or a few coloured letters of which only the colour is asked."""

from __future__ import annotations

import random

from foveal.evaluation.tasks.scene import CAPTION_REQUESTS, COLOURS, Question, Scene, Thing, jittered, light_background

__all__ = ["make_scene", "questions"]

_LETTERS = "ABCDEFGHKLMNPRSTUXYZ"


def make_scene(rng: random.Random) -> Scene:
    digit = rng.random() < 0.8
    label = str(rng.randint(0, 9)) if digit else "".join(rng.choices(_LETTERS, k=rng.randint(2, 4)))
    height = rng.uniform(0.38, 0.62) if digit else rng.uniform(0.24, 0.4)
    colour = rng.choice([c for c in COLOURS if c != "yellow"])
    reach = 0.5 - height / 2
    thing = Thing(
        form="text",
        colour=colour,
        rgb=jittered(colour, rng),
        x=0.5 + rng.uniform(-reach, reach) * 0.9,
        y=0.5 + rng.uniform(-reach, reach) * 0.9,
        width=height * 0.6 * len(label),
        height=height,
        label=label,
        tilt_degrees=rng.uniform(-10, 10),
        stroke=rng.choice((0, 2, 4, 6)),
    )
    return Scene("text", (thing,), light_background(rng))


def questions(scene: Scene, rng: random.Random) -> list[Question]:
    thing = scene.things[0]
    noun = "digit" if thing.label.isdigit() else "text"
    nouns = ("digit", "number") if noun == "digit" else ("text", "writing")
    asked = [
        Question("text_color", text.format(rng.choice(nouns)), thing.colour)
        for text in rng.sample(("What color is the {}?", "What is the colour of the {}?", "Which color is the {}?"), 2)
    ]
    if noun == "digit":
        wordings = (
            "What digit is shown?",
            "What number is this?",
            "Which digit do you see?",
            "Read the digit.",
            "What number is written in the image?",
        )
        asked += [Question("digit", text, thing.label) for text in rng.sample(wordings, 3)]
        guess = rng.choice((thing.label, str(rng.randint(0, 9))))
        asked.append(Question("digit_yes_no", f"Is this the digit {guess}?", "yes" if guess == thing.label else "no"))
        asked.append(
            Question("caption_text", rng.choice(CAPTION_REQUESTS), f"the digit {thing.label} in {thing.colour}")
        )
    else:
        asked.append(Question("caption_text", rng.choice(CAPTION_REQUESTS), f"some text in {thing.colour}"))
    return asked
