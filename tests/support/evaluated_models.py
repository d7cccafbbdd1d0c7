"""Fakes of EvaluatedModel: one that sees its pictures perfectly, and ways to break it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from foveal.evaluation.evaluation_result import Speed
from foveal.evaluation.metrics.perplexity import TextWindow
from foveal.evaluation.model import ModelFacts, OnProgress, Prompt, Response, Running
from foveal.evaluation.suite import Suite

__all__ = ["SeeingModel"]

VOCAB = 64
FACTS = ModelFacts("fake", "digest", 1000, True, VOCAB, "a test")


class SeeingModel:
    """Knows the right answer to every (picture, question) of a suite; looks pictures up by their pixels.

    `mistake(question) -> answer | None` replaces answers; `blind` answers from the question alone.
    """

    def __init__(
        self,
        suite: Suite,
        *,
        blind: bool = False,
        mistake: Callable[[str], str | None] = lambda question: None,
        nats_per_token: float = 2.0,
        supports_images: bool = True,
    ) -> None:
        self.facts = replace(FACTS, supports_images=supports_images)
        self.known = {(item.picture().tobytes(), q.text): q.answer for item in suite.items for q in item.questions}
        self._by_question = {text: answer for (_, text), answer in self.known.items()}
        self.blind, self.mistake, self.nats_per_token = blind, mistake, nats_per_token
        self.asked: list[Prompt] = []

    def respond(
        self, prompts: Sequence[Prompt], *, max_tokens: int, logits: bool = False, progress: OnProgress | None = None
    ) -> list[Response]:
        self.asked += prompts
        return [self._respond(prompt, logits) for prompt in prompts]

    def _respond(self, prompt: Prompt, logits: bool) -> Response:
        answer = self.mistake(prompt.question) or self._see(prompt)
        token = sum(answer.encode()) % VOCAB
        row = np.zeros((2, VOCAB), dtype=np.float32)
        row[:, token] = 5.0
        return Response(answer, (token, 0), row if logits else None)

    def _see(self, prompt: Prompt) -> str:
        if self.blind:
            return self._by_question[prompt.question]
        picture = prompt.picture
        assert isinstance(picture, Image.Image)
        return self.known.get((picture.tobytes(), prompt.question), "fog" + "gy" * (sum(picture.tobytes()) % 7))

    def tokenize(self, text: str) -> list[int]:
        return [byte % VOCAB for byte in text.encode()]

    def log_likelihoods(
        self, token_ids: Sequence[int], windows: Sequence[TextWindow], *, progress: OnProgress | None = None
    ) -> list[float]:
        return [-self.nats_per_token * window.num_scored for window in windows]

    def measure_running(self) -> Running:
        return Running(Speed(encode_ms=1.0, prefill_tok_s=2.0, decode_tok_s=3.0), 5000)
