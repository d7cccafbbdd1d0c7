"""Calibration data: image-text pairs, stratified over tasks, with a digest of their content."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from foveal.compression.calibration_fitness import (
    CalibrationUnfitError,
    picture_digest,
    refuse_pictures,
    refuse_texts,
)
from foveal.core.errors import ConfigurationError
from foveal.evaluation.tasks.catalogue import FAMILIES, make_item

__all__ = ["DEFAULT_PAIRS", "CalibrationSample", "CalibrationSet"]

DEFAULT_PAIRS = 128


@dataclass(frozen=True)
class CalibrationSample:
    """One question about a picture (None: no picture) and its right answer."""

    picture: Image.Image | None
    question: str
    """Empty: the answer is a passage to read, not an answer to anything."""
    answer: str
    task: str = ""


@dataclass(frozen=True)
class CalibrationSet:
    """Samples in a fixed order; `kind` says where they came from (passports carry it)."""

    samples: tuple[CalibrationSample, ...]
    kind: str

    def __len__(self) -> int:
        return len(self.samples)

    @classmethod
    def from_rendered_tasks(cls, num_pairs: int = DEFAULT_PAIRS, *, seed: int = 0) -> CalibrationSet:
        """Our own drawn pictures, `train` split: kinds take turns, and within a kind the least asked task is next.

        The held-out split, which accuracy is measured on, is never touched. Same arguments, same samples, on any machine.
        """
        asked: Counter[str] = Counter()
        samples = []
        kinds = sorted(FAMILIES)
        for number in range(num_pairs):
            turn, position = divmod(number, len(kinds))
            item = make_item(kinds[position], "train", seed * DEFAULT_PAIRS + turn)
            question = min(item.questions, key=lambda one: asked[one.task])
            asked[question.task] += 1
            samples.append(CalibrationSample(item.picture(), question.text, question.answer, question.task))
        return cls(tuple(samples), f"rendered tasks, train split, seed {seed}")

    @classmethod
    def from_jsonl(cls, path: str | Path) -> CalibrationSet:
        """One {"image": path, "question": str, "answer": str} a line, optionally with "task". Paths are relative to the
        file; "image" may be left out for text-only models. Raises ConfigurationError that names the line."""
        source = Path(path)
        try:
            lines = source.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"calibration file {source} cannot be read: {error}. Check the path and that it is UTF-8 text."
            ) from error
        samples = [
            _read_line(source, number, line)
            for number, line in enumerate(lines, start=1)
            if line and not line.isspace()
        ]
        return cls(tuple(samples), f"pairs of {source.name}")

    def with_texts(self, texts: Sequence[CalibrationSample], origin: str = "given") -> CalibrationSet:
        """These samples with one of `texts` after every so many: held-out samples are drawn evenly from both."""
        if not texts:
            return self
        mixed: list[CalibrationSample] = []
        for number, sample in enumerate(self.samples):
            mixed.append(sample)
            due = (number + 1) * len(texts) // len(self.samples) - number * len(texts) // len(self.samples)
            first = number * len(texts) // len(self.samples)
            mixed += texts[first : first + due]
        return CalibrationSet(tuple(mixed), f"{self.kind}, with {len(texts)} texts ({origin})")

    @cached_property
    def digest(self) -> str:
        """SHA-256 over pictures, texts and order: the content only, no paths and no dates."""
        total = hashlib.sha256()
        for sample in self.samples:
            picture = b"" if sample.picture is None else picture_digest(sample.picture)
            texts = json.dumps([sample.task, sample.question, sample.answer]).encode()
            total.update(hashlib.sha256(picture + texts).digest())
        return total.hexdigest()

    def refuse_unfit(self, *, supports_images: bool = True) -> None:
        """Raises CalibrationUnfitError with the reason and a remedy if the data cannot stand for real requests.

        Refused: fewer than 16 pairs, one task only, text without pictures for a model that sees, and pictures that are
        noise, blank or all the same.
        """
        refuse_texts([sample.task for sample in self.samples], [sample.question for sample in self.samples])
        pictures = [sample.picture for sample in self.samples if sample.picture is not None]
        if not supports_images:
            if pictures:
                raise CalibrationUnfitError(
                    f"{len(pictures)} calibration samples have a picture, but the model reads text only. "
                    "Give samples without `image`."
                )
            return
        if 2 * len(pictures) < len(self.samples):
            raise CalibrationUnfitError(
                f"{len(pictures)} of {len(self.samples)} calibration samples have a picture; a vision-language model "
                "needs one in at least half of them. Text alone leaves the vision tower and all image tokens unmeasured."
            )
        refuse_pictures(pictures)

    def split(self, held_out_share: float = 0.2) -> tuple[Sequence[int], Sequence[int]]:
        """(indices to fit on, indices to judge on): evenly spread, at least 2 of each kind of use."""
        held = max(2, round(len(self.samples) * held_out_share))
        step = max(2, len(self.samples) // held)
        judged = list(range(step - 1, len(self.samples), step))[:held]
        return [index for index in range(len(self.samples)) if index not in set(judged)], judged


def _read_line(source: Path, number: int, line: str) -> CalibrationSample:
    where = f"line {number} of {source}"
    try:
        values: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"{where} is not JSON: {error}. Write one object a line.") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"{where} is not an object. Write keys image, question and answer.")
    texts = []
    for key in ("question", "answer"):
        text = values.get(key)
        if not isinstance(text, str) or not text.strip():
            raise ConfigurationError(f"{where} has no {key}. Write keys image, question and answer.")
        texts.append(text)
    task = values.get("task", "")
    if not isinstance(task, str):
        raise ConfigurationError(f"{where}: task is {task!r}; it must be a string.")
    picture = None
    if values.get("image") is not None:
        file = source.parent / str(values["image"])
        try:
            with Image.open(file) as opened:
                picture = opened.convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise ConfigurationError(f"{where}: picture {file} cannot be read: {error}. Correct the path.") from error
    return CalibrationSample(picture, *texts, task)
