"""Texts that stand beside the image-text pairs of a calibration, by the name of where they come from.

Questions about pictures have answers of one word. A quantiser that sees nothing else keeps what those need and lets go of
ordinary language, which no picture task shows (decision 0013).
"""

from __future__ import annotations

from pathlib import Path

from foveal.artifacts.pinned_wheel import PinnedSourceError
from foveal.compression.calibration import CalibrationSample
from foveal.core.errors import ConfigurationError
from foveal.evaluation.text_corpus import fetch_wiki_summaries, read_text
from foveal.pipeline.own_texts import own_texts

__all__ = ["OWN", "WIKI_SUMMARIES", "calibration_texts", "passages"]

OWN = "own"
WIKI_SUMMARIES = "wiki-summaries"
PASSAGE_CHARACTERS = 1000
"""About 220 tokens of English."""


def calibration_texts(
    source: str, model_dir: Path, number: int, *, cache_dir: Path | None = None
) -> tuple[CalibrationSample, ...]:
    """`number` samples without a picture. `source` as in CalibrationPlan.texts_from.

    Of the summaries the first quarter is left out: perplexity is measured on their beginning. Raises ConfigurationError
    for a file that cannot be read or is too short, PinnedSourceError where the summaries cannot be fetched.
    """
    if number < 1:
        return ()
    if source == OWN:
        return own_texts(model_dir, number, cache_dir=cache_dir)
    if source == WIKI_SUMMARIES:
        text = read_text(_summaries(cache_dir))
        text = text[len(text) // 4 :]
    else:
        text = read_text(Path(source).expanduser())
    return tuple(CalibrationSample(None, "", passage, "text") for passage in passages(text, number, source))


def _summaries(cache_dir: Path | None) -> Path:
    try:
        return fetch_wiki_summaries(cache_dir)
    except PinnedSourceError as error:
        raise PinnedSourceError(
            f"{error}\nWithout it, calibrate with a text of your own (--texts-from FILE), with what the model writes "
            "(--texts-from own), or with pictures alone (--texts 0)."
        ) from error


def passages(text: str, number: int, name: str, *, characters: int = PASSAGE_CHARACTERS) -> list[str]:
    """`number` passages of about `characters`, evenly spread over the text, none overlapping, from one space to another."""
    if len(text) < number * characters:
        raise ConfigurationError(
            f"{name} holds {len(text):,} characters; {number} passages of {characters:,} need {number * characters:,}. "
            "Give a longer text, or ask for fewer passages with --texts."
        )
    step = len(text) // number
    found = []
    for start in range(0, step * number, step):
        passage = text[start : start + characters]
        first, last = (0 if start == 0 else passage.find(" ") + 1), passage.rfind(" ")
        found.append(passage[first : last if last > first else None].strip())
    return [passage for passage in found if passage]
