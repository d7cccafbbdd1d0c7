"""The engine's log-probabilities in the two formats that clients expect."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from foveal.engine.outputs import TokenLogprob
from foveal.protocol.chat_response import ChatLogprobs, ChatTokenLogprob, ChatTopLogprob
from foveal.protocol.completion_response import CompletionLogprobs

__all__ = ["TokenText", "to_chat_logprobs", "to_completion_logprobs"]

TokenText = Callable[[int], str]

_FLOOR = -9999.0
"""JSON has no minus infinity; this is what OpenAI and vLLM send for it."""


def to_chat_logprobs(logprobs: Sequence[TokenLogprob], token_text: TokenText) -> ChatLogprobs:
    """`bytes` is the UTF-8 of the token's text: a token that is half a character shows the replacement character's."""
    content = []
    for entry in logprobs:
        text = token_text(entry.token_id)
        top = [_top(token_text(token_id), value) for token_id, value in entry.top]
        content.append(ChatTokenLogprob(text, _finite(entry.logprob), _utf8(text), top))
    return ChatLogprobs(content)


def to_completion_logprobs(
    logprobs: Sequence[TokenLogprob], token_text: TokenText, text_offset: int
) -> CompletionLogprobs:
    """`text_offset` is where the first token begins, in characters."""
    result = CompletionLogprobs([], [], [], [])
    for entry in logprobs:
        text = token_text(entry.token_id)
        result.tokens.append(text)
        result.token_logprobs.append(_finite(entry.logprob))
        result.top_logprobs.append({token_text(token_id): _finite(value) for token_id, value in entry.top})
        result.text_offset.append(text_offset)
        text_offset += len(text)
    return result


def _top(text: str, logprob: float) -> ChatTopLogprob:
    return ChatTopLogprob(text, _finite(logprob), _utf8(text))


def _utf8(text: str) -> list[int]:
    return list(text.encode("utf-8", "replace"))


def _finite(logprob: float) -> float:
    return max(logprob, _FLOOR)
