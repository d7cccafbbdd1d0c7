"""Draws the example pictures beside this file: `python examples/images/render.py`. They are not in the training data."""

from __future__ import annotations

from pathlib import Path

from foveal.evaluation.tasks.bars import FLOOR
from foveal.evaluation.tasks.render import render
from foveal.evaluation.tasks.scene import COLOURS, Scene, Thing

HERE = Path(__file__).parent
PAPER = (246, 246, 242)


def shape(form: str, colour: str, x: float, y: float, size: float) -> Thing:
    return Thing(form, colour, COLOURS[colour], x, y, size, size)


def bar(colour: str, number: int, of: int, height: float) -> Thing:
    pitch = 184 / of / 224
    return Thing(
        "bar", colour, COLOURS[colour], 0.134 + (number + 0.33) * pitch, FLOOR - height / 2, 0.66 * pitch, height
    )


def digit(label: str, colour: str) -> Thing:
    return Thing("text", colour, COLOURS[colour], 0.5, 0.5, 0.33, 0.55, label, tilt_degrees=4, stroke=4)


PICTURES = {
    "shapes": Scene(
        "shapes",
        (
            shape("circle", "red", 0.2, 0.22, 0.25),
            shape("star", "blue", 0.72, 0.3, 0.26),
            shape("circle", "green", 0.36, 0.74, 0.22),
        ),
        PAPER,
    ),
    "chart": Scene("bars", (bar("blue", 0, 3, 0.36), bar("orange", 1, 3, 0.7), bar("green", 2, 3, 0.2)), PAPER),
    "digit": Scene("text", (digit("7", "purple"),), PAPER),
    "pair": Scene(
        "relations", (shape("square", "blue", 0.22, 0.5, 0.3), shape("star", "orange", 0.76, 0.46, 0.3)), PAPER
    ),
}


def main() -> None:
    for name, scene in PICTURES.items():
        render(scene, 336).save(HERE / f"{name}.png", optimize=True)
        print(f"wrote {HERE / name}.png")


if __name__ == "__main__":
    main()
