"""Does the answer depend on the picture? A model that has gone blind answers fluently, and the same to every picture.

Each question is asked with the right picture, with another picture of the same kind, with a blank one and with the tiles
of the right one shuffled. A seeing model's next-token distributions move apart and its accuracy drops; a blind one's do
not. Counts only beside the base model: some questions ("is there a circle?") have answers that need not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from foveal.evaluation.evaluation_result import ImageSensitivity, PictureDependence
from foveal.evaluation.metrics.answer_match import is_right
from foveal.evaluation.metrics.divergence import kl_divergence
from foveal.evaluation.model import EvaluatedModel, OnProgress, Prompt, Response
from foveal.evaluation.probes.replace_picture import blank_picture, partners, shuffled_picture

__all__ = ["Probed", "measure_image_sensitivity"]

PICTURES_AT_ONCE = 4
"""Logits of so many pictures' questions are held at a time: four of 40 positions x 50k vocabulary are 32 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class Probed:
    """A picture and the (question, expected answer, possible answers) triples asked about it."""

    kind: str
    picture: Image.Image
    questions: tuple[tuple[str, str, frozenset[str]], ...]


@dataclass(slots=True)
class _Tally:
    changed: list[bool] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)

    def dependence(self) -> PictureDependence:
        return PictureDependence(
            answers=float(np.mean(self.changed)),
            kl=float(np.mean(self.kl)),
            accuracy=float(np.mean(self.right)),
            changed=tuple(self.changed),
        )


def measure_image_sensitivity(
    model: EvaluatedModel, items: Sequence[Probed], *, max_tokens: int, progress: OnProgress | None = None
) -> ImageSensitivity:
    """Ask every question four times. Raises ValueError for fewer than two pictures: there is none to swap with."""
    if len(items) < 2:
        raise ValueError(f"{len(items)} pictures to probe with; swapping needs at least 2")
    swapped = partners([item.kind for item in items])
    tallies = {name: _Tally() for name in ("swap", "blank", "shuffled")}
    right_with_picture: list[bool] = []
    for start in range(0, len(items), PICTURES_AT_ONCE):
        here = range(start, min(start + PICTURES_AT_ONCE, len(items)))
        chosen = [items[i] for i in here]
        expected = [question for item in chosen for question in item.questions]
        seen = _ask(model, chosen, [item.picture for item in chosen], max_tokens)
        right_with_picture += _judge(seen, expected)
        shown = {
            "swap": [items[swapped[i]].picture for i in here],
            "blank": [blank_picture(item.picture) for item in chosen],
            "shuffled": [shuffled_picture(items[i].picture, i) for i in here],
        }
        for name, pictures in shown.items():
            wrong = _ask(model, chosen, pictures, max_tokens)
            tally = tallies[name]
            tally.right += _judge(wrong, expected)
            tally.changed += [a.answer != b.answer for a, b in zip(seen, wrong, strict=True)]
            tally.kl += [_mean_kl(a, b) for a, b in zip(seen, wrong, strict=True)]
        if progress is not None:
            progress(len(chosen))
    return ImageSensitivity(
        swap=tallies["swap"].dependence(),
        blank=tallies["blank"].dependence(),
        shuffled=tallies["shuffled"].dependence(),
        items=len(right_with_picture),
        accuracy=float(np.mean(right_with_picture)),
    )


def _ask(
    model: EvaluatedModel, items: Sequence[Probed], pictures: Sequence[Image.Image], max_tokens: int
) -> list[Response]:
    prompts = [
        Prompt(text, picture, expected)
        for item, picture in zip(items, pictures, strict=True)
        for text, expected, _ in item.questions
    ]
    return model.respond(prompts, max_tokens=max_tokens, logits=True)


def _judge(responses: Sequence[Response], expected: Sequence[tuple[str, str, frozenset[str]]]) -> list[bool]:
    return [
        is_right(response.answer, answer, others)
        for response, (_, answer, others) in zip(responses, expected, strict=True)
    ]


def _mean_kl(seen: Response, wrong: Response) -> float:
    """KL(right picture || wrong picture), mean over the answer's positions."""
    assert seen.logits is not None
    assert wrong.logits is not None
    return float(kl_divergence(seen.logits, wrong.logits).mean())
