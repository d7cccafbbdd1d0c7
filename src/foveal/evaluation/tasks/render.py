"""Draws scenes with Pillow. Only Pillow's own font is used, so a scene looks the same on every machine."""

from __future__ import annotations

import math
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from foveal.evaluation.tasks.scene import Scene, Thing

__all__ = ["PICTURE_SIDE", "mask", "render"]

PICTURE_SIDE = 224
AXIS_RGB = (0, 0, 0)


@lru_cache(maxsize=64)
def _font(size_pixels: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_pixels)


def render(scene: Scene, side: int = PICTURE_SIDE) -> Image.Image:
    """The scene as an RGB picture, `side` x `side` pixels."""
    picture = Image.new("RGB", (side, side), scene.background)
    for thing in scene.things:
        picture.paste(thing.rgb, (0, 0), mask(thing, side))
    if scene.kind == "bars":
        low, high, floor = 0.09 * side, 0.96 * side, 0.905 * side
        ImageDraw.Draw(picture).line([(low, 0.05 * side), (low, floor), (high, floor)], fill=AXIS_RGB, width=3)
    return picture


def mask(thing: Thing, side: int = PICTURE_SIDE) -> Image.Image:
    """The pixels a thing covers: mode "L", 255 inside."""
    canvas = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(canvas)
    x, y, half_width, half_height = (v * side for v in (thing.x, thing.y, thing.width / 2, thing.height / 2))
    box = [x - half_width, y - half_height, x + half_width, y + half_height]
    match thing.form:
        case "circle":
            draw.ellipse(box, fill=255)
        case "square" | "bar":
            draw.rectangle(box, fill=255)
        case "triangle":
            draw.polygon([(x, box[1]), (box[0], box[3]), (box[2], box[3])], fill=255)
        case "star":
            draw.polygon(_star(x, y, half_width, half_height), fill=255)
        case "text":
            _draw_text(canvas, thing, side)
        case other:
            raise ValueError(f"cannot draw a thing of form {other!r}; known: circle, square, triangle, star, bar, text")
    return canvas


def _star(x: float, y: float, half_width: float, half_height: float) -> list[tuple[float, float]]:
    points = []
    for corner in range(10):
        angle = -math.pi / 2 + corner * math.pi / 5
        reach = 1.08 if corner % 2 == 0 else 0.46
        points.append((x + reach * half_width * math.cos(angle), y + reach * half_height * math.sin(angle)))
    return points


def _draw_text(canvas: Image.Image, thing: Thing, side: int) -> None:
    font = _font(max(8, round(thing.height * side * 1.35)))
    measure = ImageDraw.Draw(canvas)
    left, top, right, bottom = measure.textbbox((0, 0), thing.label, font=font, stroke_width=thing.stroke)
    width, height = math.ceil(right - left), math.ceil(bottom - top)
    stamp = Image.new("L", (width + 8, height + 8), 0)
    ImageDraw.Draw(stamp).text((4 - left, 4 - top), thing.label, font=font, fill=255, stroke_width=thing.stroke)
    if thing.tilt_degrees:
        stamp = stamp.rotate(thing.tilt_degrees, resample=Image.Resampling.BICUBIC, expand=True)
    widest = 0.94 * side
    if stamp.width > widest:
        stamp = stamp.resize((int(widest), max(1, round(stamp.height * widest / stamp.width))))
    margin_x, margin_y = side - stamp.width, side - stamp.height
    corner_x = min(max(0, round(thing.x * side - stamp.width / 2)), max(0, margin_x))
    corner_y = min(max(0, round(thing.y * side - stamp.height / 2)), max(0, margin_y))
    canvas.paste(stamp, (corner_x, corner_y))
