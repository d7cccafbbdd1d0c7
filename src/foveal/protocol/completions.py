"""POST /v1/completions: the request. Prompts are text or token ids, one or several."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from foveal.core.errors import InvalidRequestError
from foveal.core.sampling_params import SamplingParams
from foveal.protocol.generation_fields import GenerationFields

__all__ = ["CompletionRequest"]

DEFAULT_MAX_TOKENS = 16
"""OpenAI's default for this endpoint."""


class CompletionRequest(GenerationFields, kw_only=True):
    """Unknown fields are ignored (and named in a response header); wrong types are refused."""

    # msgspec cannot tell lists of strings from lists of integers in a union: `prompts()` checks the items and openapi.py
    # documents them.
    prompt: str | list[Any]
    logprobs: Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": 20})] | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None

    def to_sampling(self) -> SamplingParams:
        """Raises InvalidRequestError naming the field."""
        if self.echo:
            raise InvalidRequestError("echo is not supported; join prompt and completion yourself", param="echo")
        if self.suffix:
            raise InvalidRequestError("suffix is not supported; leave it out", param="suffix")
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise InvalidRequestError(
                f"best_of is {self.best_of} with n {self.n or 1}; only best_of equal to n is supported. Leave it out",
                param="best_of",
            )
        max_tokens = DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens
        return self.sampling(max_tokens, self.logprobs)

    def prompts(self, max_prompts: int) -> list[str | list[int]]:
        """One entry per prompt. Raises InvalidRequestError if it is empty, mixed or has more than `max_prompts`."""
        if isinstance(self.prompt, str):
            return [_text(self.prompt, "prompt")]
        if not self.prompt:
            raise InvalidRequestError("prompt is empty; send text or token ids", param="prompt")
        if _is_token_ids(self.prompt):
            return [_token_ids(self.prompt, "prompt")]
        if len(self.prompt) > max_prompts:
            raise InvalidRequestError(
                f"prompt has {len(self.prompt)} entries; the limit is {max_prompts}. Send them in several requests",
                param="prompt",
            )
        return [_one(entry, f"prompt[{index}]") for index, entry in enumerate(self.prompt)]


def _one(entry: object, param: str) -> str | list[int]:
    if isinstance(entry, str):
        return _text(entry, param)
    if isinstance(entry, list) and (not entry or _is_token_ids(entry)):
        return _token_ids(entry, param)
    raise InvalidRequestError(f"{param} must be a string or a list of token ids", param=param)


def _is_token_ids(value: list[Any]) -> bool:
    return all(type(item) is int for item in value)


def _text(text: str, param: str) -> str:
    if not text:
        raise InvalidRequestError(f"{param} is empty; send text or token ids", param=param)
    return text


def _token_ids(ids: list[int], param: str) -> list[int]:
    if not ids:
        raise InvalidRequestError(f"{param} is empty; send at least one token id", param=param)
    if min(ids) < 0 or max(ids) >= 2**31:
        raise InvalidRequestError(f"{param} has a token id outside 0 .. 2**31 - 1", param=param)
    return ids
