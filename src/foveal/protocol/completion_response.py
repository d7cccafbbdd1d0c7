"""POST /v1/completions: the answer. A chunk of a stream has the same shape."""

from __future__ import annotations

from typing import Literal

import msgspec

from foveal.protocol.chat_response import FinishReasonName
from foveal.protocol.usage import Usage

__all__ = ["Completion", "CompletionChoice", "CompletionChunk", "CompletionLogprobs"]


class CompletionLogprobs(msgspec.Struct):
    """The old format: parallel lists, one entry per token. `text_offset` counts characters of the completion."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(msgspec.Struct):
    """`index` is prompt * n + choice."""

    index: int
    text: str
    finish_reason: FinishReasonName | None = None
    logprobs: CompletionLogprobs | None = None
    stop_reason: str | int | None = None


class Completion(msgspec.Struct):
    """`created` is in Unix seconds."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    object: Literal["text_completion"] = "text_completion"


class CompletionChunk(msgspec.Struct):
    """One event of a stream; `usage` is there only in the last one, and only if it was asked for."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | msgspec.UnsetType | None = msgspec.UNSET
    object: Literal["text_completion"] = "text_completion"
