"""A tiny LLaVA with a suite that it answers perfectly: its own greedy answers are the references.

Random weights know nothing, but they do look at the picture, and what compression breaks changes their answers.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image

from foveal.evaluation.model import Prompt, Response
from foveal.evaluation.suite import Suite, SuiteItem, SuiteSize
from foveal.evaluation.tasks.scene import Question
from foveal.evaluation.thresholds import FOUR_BIT
from foveal.pipeline.transformers_model import TransformersEvaluatedModel
from support.tiny_checkpoints import build_tiny_checkpoint
from support.tiny_models import tiny_image

__all__ = ["LIMITS", "SIZE", "SelfSuite", "build_provable_checkpoint"]

LIMITS = replace(FOUR_BIT, task_points=8.0, task_ceiling_points=40.0, image_sensitivity_kept=0.8, resamples=500)
"""Of a random model some answers flip when its weights are rounded to 8 bits, however sure it was."""
SIZE = SuiteSize(
    name="own answers",
    pictures={},
    easy_vqa_pictures=0,
    questions_per_task=100,
    captions_per_task=0,
    text_tokens=600,
    probed_pictures=24,
    probed_questions=2,
    divergence_questions=20,
    window=64,
    stride=32,
    max_tokens=1,
    samples=4,
)
_TRIED, _KEPT = 160, 40
_QUESTIONS = {"what": "What is it?", "where": "Where is it then?"}


def build_provable_checkpoint(directory: Path) -> Path:
    """A tiny LLaVA that answers in letters only, so that answers are words."""
    build_tiny_checkpoint("llava", directory)
    model = transformers.AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32)
    letters = transformers.AutoTokenizer.from_pretrained(directory).convert_tokens_to_ids(
        list("abcdefghijklmnopqrstuvwxyz")
    )
    with torch.no_grad():
        kept = model.lm_head.weight[letters].clone()
        model.lm_head.weight.mul_(0.05)
        model.lm_head.weight[letters] = kept
    model.save_pretrained(directory)
    return directory


class SelfSuite(Suite):
    """Noise pictures, two questions each, answered by `base` itself."""

    def __init__(self, base: Path, text: Path | None = None) -> None:
        super().__init__(SIZE, text=text)
        object.__setattr__(self, "_base", base)

    @cached_property
    def items(self) -> tuple[SuiteItem, ...]:
        model = TransformersEvaluatedModel(self._base)  # type: ignore[attr-defined]
        found = []
        for seed in range(_TRIED):
            prompts = [Prompt(text, _picture(seed), "x") for text in _QUESTIONS.values()]
            responses = model.respond(prompts, max_tokens=SIZE.max_tokens, logits=True)
            questions = tuple(
                Question(task, text, response.answer)
                for (task, text), response in zip(_QUESTIONS.items(), responses, strict=True)
            )
            found.append((min(map(_margin, responses)), seed, questions))
        # A random model is rarely sure of anything: pictures on whose answers it is surest.
        chosen = sorted(found, reverse=True)[:_KEPT]
        return tuple(SuiteItem("noise", partial(_picture, seed), questions) for _, seed, questions in chosen)


def _margin(response: Response) -> float:
    """By how much the first token beats the second."""
    assert response.logits is not None
    second, first = np.sort(response.logits[0])[-2:]
    return float(first - second)


@lru_cache(maxsize=200)
def _picture(seed: int) -> Image.Image:
    return tiny_image(1000 + seed)
