"""Pictures with several questions each: what sensitivity is measured on."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from foveal.compression.calibration import CalibrationSample, CalibrationSet
from foveal.compression.calibration_fitness import picture_digest
from foveal.evaluation.tasks.catalogue import FAMILIES, make_item

__all__ = ["AskedPicture", "digest_of", "from_calibration", "from_rendered_tasks", "from_texts"]

_FIRST_INDEX = 1_000_000
"""Rendered items from here on: the train split, but no picture that calibration or training draws by default."""


@dataclass(frozen=True)
class AskedPicture:
    """A picture (None: text only) and the (question, right answer) pairs about it. Pictures of one kind are swapped."""

    picture: Image.Image | None
    kind: str
    questions: tuple[tuple[str, str], ...]


def from_rendered_tasks(pictures: int = 8, questions: int = 2, *, seed: int = 0) -> list[AskedPicture]:
    """Our own drawn pictures, kinds in turn; for each the questions whose tasks were asked least so far."""
    asked: Counter[str] = Counter()
    result = []
    kinds = sorted(FAMILIES)
    for number in range(pictures):
        turn, position = divmod(number, len(kinds))
        item = make_item(kinds[position], "train", _FIRST_INDEX + 1000 * seed + turn)
        chosen = []
        for _ in range(min(questions, len(item.questions))):
            left = [one for one in item.questions if one not in chosen]
            chosen.append(min(left, key=lambda one: asked[one.task]))
            asked[chosen[-1].task] += 1
        pairs = tuple((one.text, one.answer) for one in chosen)
        result.append(AskedPicture(item.picture(), kinds[position], pairs))
    return result


def from_calibration(calibration: CalibrationSet, pictures: int) -> list[AskedPicture]:
    """The first samples of a calibration set, one question each; kind is the sample's task."""
    return [
        AskedPicture(sample.picture, sample.task, ((sample.question, sample.answer),))
        for sample in calibration.samples[:pictures]
    ]


def from_texts(samples: Sequence[CalibrationSample], *, characters: int = 500) -> list[AskedPicture]:
    """Samples without a picture, cut short: passages to read, or questions with their answers."""
    return [AskedPicture(None, "text", ((sample.question, sample.answer[:characters]),)) for sample in samples]


def digest_of(asked: Sequence[AskedPicture]) -> str:
    """SHA-256, hex, of pictures, questions and their order."""
    total = hashlib.sha256()
    for one in asked:
        picture = b"" if one.picture is None else picture_digest(one.picture)
        texts = json.dumps([one.kind, one.questions]).encode()
        total.update(hashlib.sha256(picture + texts).digest())
    return total.hexdigest()
