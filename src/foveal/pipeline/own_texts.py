"""Text for calibration that the model writes itself: greedy answers to requests without a picture.

For where no text of service is at hand and none may be fetched: the idea of LLM-QAT's data-free distillation. Real text
is better (decision 0013).
"""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

from foveal.artifacts.model_files import source_digest
from foveal.compression.calibration import CalibrationSample
from foveal.core.errors import ConfigurationError
from foveal.evaluation.model import Prompt
from foveal.evaluation.text_corpus import evaluation_cache_dir
from foveal.models.run_formats import RunFormats
from foveal.pipeline.transformers_model import TransformersEvaluatedModel

__all__ = ["MAX_OWN_TEXTS", "own_texts"]

_TOPICS = (
    *("bees", "bridges", "bread", "clocks", "cities", "doctors", "fire", "gardens", "gravity", "history", "islands"),
    *("languages", "maps", "money", "mountains", "music", "oceans", "painting", "rivers", "schools", "ships", "sleep"),
    *("space", "sports", "tea", "trains", "trees", "volcanoes", "weather", "winter", "work", "writing"),
)
_REQUESTS = (
    "Explain {} to a child.",
    "What is the history of {}?",
    "Tell me a short story about {}.",
    "Give me three facts about {}.",
)
MAX_OWN_TEXTS = len(_TOPICS) * len(_REQUESTS)
_MAX_TOKENS = 96


def own_texts(model_dir: Path, number: int, *, cache_dir: Path | None = None) -> tuple[CalibrationSample, ...]:
    """`number` requests with the model's own answers; kept in `cache_dir` by the model's digest.

    Requests that the model answers with nothing are left out. Raises ConfigurationError for more than MAX_OWN_TEXTS, and
    what loading raises.
    """
    if number > MAX_OWN_TEXTS:
        raise ConfigurationError(
            f"{number} texts were asked for; there are requests for {MAX_OWN_TEXTS}. Ask for fewer."
        )
    if number < 1:
        return ()
    folder = (cache_dir or evaluation_cache_dir()) / "own-texts"
    path = folder / f"{source_digest(model_dir).replace(':', '-')}-{number}.json"
    answers = _read(path)
    if answers is None:
        prompts = [Prompt(request) for request in _requests(number)]
        responses = TransformersEvaluatedModel(model_dir, RunFormats(dtype="float32")).respond(
            prompts, max_tokens=_MAX_TOKENS
        )
        answers = [response.answer for response in responses]
        _write(path, answers)
    pairs = zip(_requests(number), answers, strict=True)
    return tuple(CalibrationSample(None, request, answer) for request, answer in pairs if answer)


def _requests(number: int) -> list[str]:
    """Each topic once before any topic again, and the requests in turn."""
    rounds = itertools.product(range(len(_REQUESTS)), range(len(_TOPICS)))
    return [_REQUESTS[(turn + topic) % len(_REQUESTS)].format(_TOPICS[topic]) for turn, topic in rounds][:number]


def _read(path: Path) -> list[str] | None:
    try:
        return list(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def _write(path: Path, answers: list[str]) -> None:
    """A cache that cannot be written costs a minute, not the result."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(answers), encoding="utf-8")
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
