"""The seam between evaluation and a loaded model. Needs no torch: arrays are numpy, pictures are Pillow's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from foveal.evaluation.evaluation_result import Speed
from foveal.evaluation.metrics.perplexity import TextWindow

__all__ = ["EvaluatedModel", "Floats32", "ModelFacts", "OnProgress", "Prompt", "Response", "Running"]

Floats32 = npt.NDArray[np.float32]
OnProgress = Callable[[int], None]
"""Told how many prompts or windows were completed since the last call."""


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """One question about one picture (None: text only), and the answer that teacher forcing follows.

    Prompts that hold the same picture object share its encoding and the prompt's common beginning.
    """

    question: str
    picture: Image.Image | None = None
    reference: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """What a model makes of a prompt."""

    answer: str
    """Greedy, up to the end of turn; stripped."""
    top1: tuple[int, ...]
    """The most likely token at each position of the reference, the end of turn included, given the reference before it."""
    logits: Floats32 | None = None
    """[len(top1), vocab] at these positions, when asked for."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model without running it."""

    name: str
    digest: str
    size_bytes: int
    """All weight files of the directory."""
    supports_images: bool
    vocab_size: int
    machine: str
    run_as: str = ""
    """Decoder and number formats, for people to read."""


@dataclass(frozen=True, slots=True)
class Running:
    """What it costs to run, measured in a process of its own."""

    speed: Speed
    peak_memory_bytes: int


class EvaluatedModel(Protocol):
    """A loaded model, as the evaluation sees it."""

    facts: ModelFacts

    def respond(
        self, prompts: Sequence[Prompt], *, max_tokens: int, logits: bool = False, progress: OnProgress | None = None
    ) -> list[Response]:
        """Greedy answers and teacher-forced predictions, in order."""

    def tokenize(self, text: str) -> list[int]:
        """Without special tokens."""

    def log_likelihoods(
        self, token_ids: Sequence[int], windows: Sequence[TextWindow], *, progress: OnProgress | None = None
    ) -> list[float]:
        """Per window the sum over its scored tokens of log p(token | the window's tokens before it), in nats."""

    def measure_running(self) -> Running:
        """Load in a fresh process, time single requests there. Raises ModelLoadError when that process cannot load it."""
