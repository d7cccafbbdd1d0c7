"""Small requests for scheduler tests."""

from __future__ import annotations

from collections.abc import Sequence

from foveal.core.image_span import ImageSpan
from foveal.core.priority import Priority
from foveal.core.sampling_params import SamplingParams
from foveal.engine.scheduling.config import SchedulerConfig
from foveal.engine.scheduling.request import ImageRef, Request

__all__ = ["PLACEHOLDER", "config", "image", "request"]

PLACEHOLDER = 99


def config(**changes: object) -> SchedulerConfig:
    values: dict[str, object] = {
        "num_blocks": 64,
        "block_size": 4,
        "max_model_len": 128,
        "max_num_batched_tokens": 64,
        "max_num_seqs": 8,
        "encoder_budget_tokens": 64,
        "feature_cache_bytes": 1000,
        "watermark": 0.0,
    }
    return SchedulerConfig(**{**values, **changes})  # type: ignore[arg-type]


def image(name: str = "cat", num_tokens: int = 4, *, feature_bytes: int = 100, encode_tokens: int = 16) -> ImageRef:
    return ImageRef(name.encode(), num_tokens, feature_bytes, encode_tokens)


def request(
    request_id: str = "a",
    parts: Sequence[int | ImageRef] | int = 5,
    *,
    arrival_s: float = 0.0,
    priority: Priority = Priority.P1,
    deadline_s: float | None = None,
    cache_salt: bytes = b"",
    **sampling: object,
) -> Request:
    """`parts` are token ids and images in prompt order, or a number of tokens 1, 2, 3, ..."""
    if isinstance(parts, int):
        parts = range(1, parts + 1)
    tokens: list[int] = []
    images: list[ImageRef] = []
    spans: list[ImageSpan] = []
    for part in parts:
        if isinstance(part, ImageRef):
            spans.append(ImageSpan(len(tokens), part.num_tokens, len(images)))
            images.append(part)
            tokens += [PLACEHOLDER] * part.num_tokens
        else:
            tokens.append(part)
    return Request(
        request_id=request_id,
        prompt_token_ids=tokens,
        sampling=SamplingParams(**{"max_tokens": 4, **sampling}),  # type: ignore[arg-type]
        arrival_s=arrival_s,
        priority=priority,
        deadline_s=deadline_s,
        images=tuple(images),
        spans=tuple(spans),
        cache_salt=cache_salt,
    )
