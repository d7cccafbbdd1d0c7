"""Requests in which every stage has something to win: pictures, repeats, answers of different lengths."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

from foveal.models.image_input import PromptInput
from foveal.models.processing.processor import Processor

__all__ = ["Asked", "make_traffic"]

_LEADS = (
    "You look at pictures for a shop that sells toys. Be exact about colours and shapes, and say nothing that cannot be "
    "seen. Here is the picture:",
    "You check drawings that children sent in. Be kind, and name every shape with its colour and its place. This is the "
    "drawing of today:",
)
_QUESTIONS = (
    "How many shapes are there?",
    "What is on the left side?",
    "What is in the middle?",
    "Describe the picture.",
)
_LENGTHS = (0.125, 0.5, 0.25, 1.0)
"""Of the longest answer: static batches wait for their longest."""
_SIDE = 336


@dataclass(frozen=True)
class Asked:
    prompt: PromptInput
    new_tokens: int


def make_traffic(processor: Processor, num_requests: int, new_tokens: int, seed: int, *, images: bool) -> list[Asked]:
    """A third new pictures, then the same pictures after the same words, then the same pictures after other words.

    `seed` draws the pictures; without `images` the requests are the same texts.
    """
    fresh = -(-num_requests // 3)
    pictures = [_picture(random.Random(f"{seed} {k}")) for k in range(fresh)]
    asked = []
    for k in range(num_requests):
        lead = _LEADS[1] if k >= 2 * fresh else _LEADS[0]
        parts: list[dict[str, str]] = [
            {"type": "text", "text": lead if images else f"{lead} number {seed}-{k % fresh}."}
        ]
        if images:
            parts.append({"type": "image"})
        parts.append({"type": "text", "text": _QUESTIONS[k % len(_QUESTIONS)]})
        text = processor.apply_chat_template([{"role": "user", "content": parts}])
        prompt = processor.prepare(text, [pictures[k % fresh]] if images else [])
        asked.append(Asked(prompt, max(2, int(new_tokens * _LENGTHS[k % len(_LENGTHS)]))))
    return asked


def _picture(draw_from: random.Random) -> Image.Image:
    def colour() -> tuple[int, int, int]:
        return draw_from.randrange(256), draw_from.randrange(256), draw_from.randrange(256)

    image = Image.new("RGB", (_SIDE, _SIDE), colour())
    canvas = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = draw_from.randrange(_SIDE - 60), draw_from.randrange(_SIDE - 60)
        shape = canvas.ellipse if draw_from.random() < 0.5 else canvas.rectangle
        shape((x, y, x + draw_from.randrange(20, 60), y + draw_from.randrange(20, 60)), fill=colour())
    return image
