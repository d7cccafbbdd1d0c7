"""Token accounting of a request, with what the cache and the images took of it."""

from __future__ import annotations

import msgspec

__all__ = ["MultimodalTokens", "PromptTokensDetails", "Usage"]


class MultimodalTokens(msgspec.Struct):
    """Prompt tokens that stand for something other than text."""

    image: int = 0


class PromptTokensDetails(msgspec.Struct):
    """`cached_tokens` were found in the prefix cache and not computed again."""

    cached_tokens: int = 0
    multimodal_tokens: MultimodalTokens = msgspec.field(default_factory=MultimodalTokens)


class Usage(msgspec.Struct):
    """Tokens; `completion_tokens` is over all choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails

    @classmethod
    def of(cls, prompt_tokens: int, completion_tokens: int, cached_tokens: int, image_tokens: int) -> Usage:
        details = PromptTokensDetails(cached_tokens, MultimodalTokens(image_tokens))
        return cls(prompt_tokens, completion_tokens, prompt_tokens + completion_tokens, details)
