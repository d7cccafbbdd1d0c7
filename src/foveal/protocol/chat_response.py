"""POST /v1/chat/completions: the answer, whole or in chunks."""

from __future__ import annotations

from typing import Literal

import msgspec

from foveal.protocol.usage import Usage

__all__ = [
    "ChatChoice",
    "ChatChunk",
    "ChatChunkChoice",
    "ChatCompletion",
    "ChatDelta",
    "ChatLogprobs",
    "ChatTokenLogprob",
    "ChatTopLogprob",
    "FinishReasonName",
    "ResponseMessage",
]

FinishReasonName = Literal["stop", "length"]


class ChatTopLogprob(msgspec.Struct):
    """Natural log. `bytes` is the token's text in UTF-8."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChatTokenLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[ChatTopLogprob]


class ChatLogprobs(msgspec.Struct):
    content: list[ChatTokenLogprob]


class ResponseMessage(msgspec.Struct):
    content: str
    role: Literal["assistant"] = "assistant"


class ChatChoice(msgspec.Struct):
    """`stop_reason` (vLLM's) is the stop string or stop token id that ended it, if one did."""

    index: int
    message: ResponseMessage
    finish_reason: FinishReasonName | None
    logprobs: ChatLogprobs | None = None
    stop_reason: str | int | None = None


class ChatCompletion(msgspec.Struct):
    """`created` is in Unix seconds."""

    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    object: Literal["chat.completion"] = "chat.completion"


class ChatDelta(msgspec.Struct, omit_defaults=True):
    role: str | None = None
    content: str | None = None


class ChatChunkChoice(msgspec.Struct):
    index: int
    delta: ChatDelta
    finish_reason: FinishReasonName | None = None
    logprobs: ChatLogprobs | None = None
    stop_reason: str | int | msgspec.UnsetType | None = msgspec.UNSET


class ChatChunk(msgspec.Struct):
    """One event of a stream; `usage` is there only in the last one, and only if it was asked for."""

    id: str
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | msgspec.UnsetType | None = msgspec.UNSET
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
