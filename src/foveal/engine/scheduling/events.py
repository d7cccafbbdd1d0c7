"""What a committed step means for its requests."""

from __future__ import annotations

from dataclasses import dataclass

from foveal.engine.scheduling.request import FinishReason, Request

__all__ = ["TokenEvent"]


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """New tokens of one request. After `finish_reason` the scheduler no longer knows the request."""

    request: Request
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
