"""POST /v1/chat/completions: the request."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from foveal.core.errors import InvalidRequestError
from foveal.core.sampling_params import SamplingParams
from foveal.protocol.content import ChatMessage
from foveal.protocol.generation_fields import INT32, GenerationFields

__all__ = ["ChatCompletionRequest"]


class ChatCompletionRequest(GenerationFields, kw_only=True):
    """Unknown fields are ignored (and named in a response header); wrong types are refused."""

    messages: Annotated[list[ChatMessage], msgspec.Meta(extra_json_schema={"minItems": 1})]
    max_completion_tokens: Annotated[int, msgspec.Meta(le=INT32, extra_json_schema={"minimum": 1})] | None = None
    """OpenAI's new name of `max_tokens`; it wins where both are sent."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": 20})] | None = None
    tools: list[dict[str, Any]] | None = None
    """Not supported yet: ignored unless `tool_choice` insists."""
    tool_choice: str | dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None

    def to_sampling(self) -> SamplingParams:
        """Raises InvalidRequestError naming the field."""
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequestError("top_logprobs needs logprobs: true", param="top_logprobs")
        if self.tool_choice not in (None, "auto", "none"):
            raise InvalidRequestError(
                "tool_choice asks for a tool call, which is not supported yet; use auto or none, or response_format with a "
                "JSON schema",
                param="tool_choice",
            )
        max_tokens = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        return self.sampling(max_tokens, (self.top_logprobs or 0) if self.logprobs else None)

    def ignored_fields(self) -> list[str]:
        return [*(["tools"] if self.tools else []), *GenerationFields.ignored_fields(self)]
