"""A deterministic EngineClient for tests of the server: no model, no processes, no time.

It answers with words; a test can hold it at a token, make it fail at one, and see what was requested and aborted.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

from foveal.core.errors import PromptTooLongError
from foveal.engine.api import EngineStats, GenerationRequest, ModelCard
from foveal.engine.outputs import ChoiceDelta, RequestMetrics, RequestOutput, TokenLogprob, Usage
from foveal.engine.scheduling.request import FinishReason

__all__ = ["FakeEngine"]

WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", ".")
IMAGE_TOKENS = 16
METRICS = RequestMetrics(preprocess_s=0.001, queue_s=0.002, encode_s=0.003, prefill_s=0.004, ttft_s=0.01, e2e_s=0.02)


@dataclass
class FakeEngine:
    """Choice k begins at word k + seed. One token is one word with a leading space."""

    model: ModelCard = field(default_factory=lambda: ModelCard("fake-vlm", "fake-vlm", 4096, True, 1_700_000_000))
    is_ready: bool = True
    default_tokens: int = 10
    """Length of an answer whose request sets no max_tokens."""
    tokens_per_event: int = 1
    hold_after: int | None = None
    """Wait for `release` before producing token number `hold_after`."""
    fail_after: int | None = None
    failure: BaseException | None = None
    """Raised before token number `fail_after` (0: before the first event)."""
    finish_with: FinishReason | None = None
    """Overrides how choices end."""
    engine_stats: EngineStats = field(default_factory=EngineStats)

    def __post_init__(self) -> None:
        self.requests: list[GenerationRequest] = []
        self.aborted: list[str] = []
        self.release = asyncio.Event()
        self.holding = asyncio.Event()
        self.ended = asyncio.Event()
        """Set when a request ends, in whatever way."""
        self.num_in_flight = 0

    def stats(self) -> EngineStats:
        return replace(self.engine_stats, num_running=self.num_in_flight)

    def tokenize(self, text: str) -> list[int]:
        return [len(word) for word in text.split()]

    def token_text(self, token_id: int) -> str:
        return " " + WORDS[token_id % len(WORDS)]

    async def generate(self, request: GenerationRequest) -> AsyncIterator[RequestOutput]:
        self.requests.append(request)
        self.num_in_flight += 1
        finished = False
        try:
            prompt_tokens = self._prompt_tokens(request)
            if prompt_tokens >= self.model.max_model_len:
                raise PromptTooLongError(f"the request has {prompt_tokens} tokens; the limit is 4095. Shorten it")
            answers = [self._answer(request, index) for index in range(request.sampling.n)]
            length = max(len(tokens) for tokens, _, _ in answers)
            for start in range(0, length, self.tokens_per_event):
                await self._checkpoint(start)
                end = start + self.tokens_per_event
                deltas = tuple(
                    self._delta(request, index, answer, start, end)
                    for index, answer in enumerate(answers)
                    if start < len(answer[0])
                )
                finished = end >= length
                done = sum(min(end, len(tokens)) for tokens, _, _ in answers)
                usage = Usage(prompt_tokens, 2, IMAGE_TOKENS * len(request.images), done)
                yield RequestOutput(request.request_id, deltas, usage, finished, METRICS)
        finally:
            self.num_in_flight -= 1
            if not finished:
                self.aborted.append(request.request_id)
            self.ended.set()

    async def _checkpoint(self, position: int) -> None:
        if self.failure is not None and self.fail_after is not None and position >= self.fail_after:
            raise self.failure
        if self.hold_after is not None and position >= self.hold_after:
            self.holding.set()
            await self.release.wait()

    def _prompt_tokens(self, request: GenerationRequest) -> int:
        if request.prompt_token_ids is not None:
            return len(request.prompt_token_ids)
        if request.prompt is not None:
            return len(request.prompt.split())
        text = " ".join(_message_text(message) for message in request.messages or ())
        return len(text.split()) + IMAGE_TOKENS * len(request.images)

    def _answer(self, request: GenerationRequest, index: int) -> tuple[list[str], FinishReason, str | None]:
        """(text of each token, how it ends, the stop string that ended it)."""
        sampling = request.sampling
        limit = self.default_tokens if sampling.max_tokens is None else min(sampling.max_tokens, 4096)
        if sampling.guided is not None:
            tokens = list(json.dumps(_example(sampling.guided.json_schema or {})))
            return tokens, self.finish_with or FinishReason.STOP, None
        first = index + (sampling.seed or 0)
        tokens = [self.token_text(first + k) for k in range(limit)]
        text = "".join(tokens)
        for stop in sampling.stop:
            cut = text.find(stop)
            if cut >= 0:
                return [text[:cut]], self.finish_with or FinishReason.STOP, stop
        reason = FinishReason.STOP if sampling.max_tokens is None else FinishReason.LENGTH
        return tokens, self.finish_with or reason, None

    def _delta(
        self,
        request: GenerationRequest,
        index: int,
        answer: tuple[list[str], FinishReason, str | None],
        start: int,
        end: int,
    ) -> ChoiceDelta:
        tokens, reason, stop = answer
        ids = tuple(
            (index + (request.sampling.seed or 0) + k) % len(WORDS) for k in range(start, min(end, len(tokens)))
        )
        logprobs = None
        if (top := request.sampling.logprobs) is not None:
            logprobs = tuple(
                TokenLogprob(i, -0.5, 1, tuple(((i + k) % len(WORDS), -0.5 - k) for k in range(top))) for i in ids
            )
        last = end >= len(tokens)
        return ChoiceDelta(
            index, "".join(tokens[start:end]), ids, logprobs, reason if last else None, stop if last else None
        )


def _message_text(message: dict[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if part["type"] == "text")


def _example(schema: dict[str, Any]) -> Any:
    """The simplest value that a schema of objects, arrays, strings, numbers and enums allows."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object")
    simple: dict[Any, Any] = {"string": "x", "integer": 1, "number": 1.5, "boolean": True, "array": [], "null": None}
    if isinstance(kind, str) and kind in simple:
        return simple[kind]
    return {name: _example(value) for name, value in schema.get("properties", {}).items() if isinstance(value, dict)}
