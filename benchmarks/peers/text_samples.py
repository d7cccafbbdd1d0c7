"""English text as token ids, the same for everyone: passages to calibrate on, and disjoint windows for the perplexity."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

from foveal.compression.calibration import CalibrationSample, CalibrationSet
from foveal.compression.calibration_inputs import prepare_samples
from foveal.models.loading import load_processor

__all__ = ["TextSamples", "make_text_samples"]

_PASSAGE_CHARACTERS = 1100
_TRAIN_SHARE = 0.5
_WINDOW_TOKENS = 256


@dataclass(frozen=True)
class TextSamples:
    passages: list[list[str]]
    """[beginning, rest] of each calibration passage."""
    calibration: list[list[int]]
    """Token ids of each passage, exactly as our own calibration prepares it."""
    windows: list[list[int]]
    """Token ids of the test text, in windows of 256."""

    def calibration_set(self) -> CalibrationSet:
        samples = (CalibrationSample(None, beginning, rest) for beginning, rest in self.passages)
        return CalibrationSet(tuple(samples), "passages of English text")

    def write(self, path: Path) -> Path:
        path.write_text(json.dumps(asdict(self)))
        return path

    @classmethod
    def read(cls, path: Path) -> TextSamples:
        return cls(**json.loads(path.read_text()))


def make_text_samples(text: str, model: Path, *, num_passages: int, num_windows: int, seed: int) -> TextSamples:
    """Passages (about 240 tokens) from random places of the first half of `text`, windows from the second half."""
    middle = text.index("\n", int(len(text) * _TRAIN_SHARE))
    train, test = text[:middle], text[middle:]
    places = random.Random(seed)
    passages = []
    for _ in range(num_passages):
        start = places.randrange(len(train) - _PASSAGE_CHARACTERS)
        passage = train[start : start + _PASSAGE_CHARACTERS].partition(" ")[2]
        passages.append([passage[: len(passage) // 2], passage[len(passage) // 2 :]])
    processor = load_processor(model)
    drawn = TextSamples(passages, [], [])
    prepared = prepare_samples(drawn.calibration_set().samples, processor)
    ids = processor.tokenize(test)
    windows = [ids[at : at + _WINDOW_TOKENS] for at in range(0, len(ids) - _WINDOW_TOKENS + 1, _WINDOW_TOKENS)]
    return TextSamples(passages, [list(one.prompt.token_ids) for one in prepared], windows[:num_windows])
