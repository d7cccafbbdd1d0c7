"""Ask an engine and show the answer as it comes, with its timings."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from foveal.core.errors import InvalidRequestError
from foveal.core.sampling_params import SamplingParams
from foveal.engine.api import GenerationRequest
from foveal.engine.async_engine import AsyncEngine

__all__ = ["Answer", "ask", "read_image", "timing_line"]


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    prompt_tokens: int
    image_tokens: int
    cached_tokens: int
    completion_tokens: int
    ttft_s: float
    e2e_s: float
    finish_reason: str | None

    @property
    def tokens_per_s(self) -> float:
        """Decode rate after the first token; 0 for answers of one token."""
        decode_s = self.e2e_s - self.ttft_s
        return (self.completion_tokens - 1) / decode_s if decode_s > 0 and self.completion_tokens > 1 else 0.0


async def ask(
    engine: AsyncEngine,
    messages: Sequence[dict[str, Any]],
    images: Sequence[bytes],
    sampling: SamplingParams,
    console: Console | None,
) -> Answer:
    """Stream the answer to `console` (None is silent)."""
    request = GenerationRequest(uuid.uuid4().hex, sampling, messages=messages, images=images)
    text, finish = "", None
    async for output in engine.generate(request):
        for delta in output.deltas:
            text += delta.text
            finish = delta.finish_reason or finish
            if console is not None:
                console.print(delta.text, end="", markup=False, highlight=False, soft_wrap=True)
    if console is not None:
        console.print()
    usage, metrics = output.usage, output.metrics
    return Answer(
        text=text,
        prompt_tokens=usage.prompt_tokens,
        image_tokens=usage.image_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
        ttft_s=metrics.ttft_s,
        e2e_s=metrics.e2e_s,
        finish_reason=finish,
    )


def timing_line(answer: Answer) -> str:
    rate = f"{answer.tokens_per_s:.1f} tok/s" if answer.tokens_per_s else "-"
    return (
        f"TTFT {answer.ttft_s * 1e3:.0f} ms | {rate} | {answer.prompt_tokens} prompt tokens "
        f"({answer.image_tokens} image, {answer.cached_tokens} cached) | {answer.completion_tokens} new"
    )


def read_image(path: Path) -> bytes:
    """Raises InvalidRequestError if the file cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"cannot read image {path}: {error.strerror}; check the path") from None
