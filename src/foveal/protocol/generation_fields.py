"""Request fields that chat completions and completions share, and their translation to SamplingParams."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from foveal.core.errors import InvalidRequestError
from foveal.core.priority import Priority
from foveal.core.sampling_params import GuidedDecoding, SamplingParams

__all__ = ["INT32", "GenerationFields", "JsonSchemaFormat", "ResponseFormat", "StreamOptions", "parse_priority"]


def _range(**limits: float) -> msgspec.Meta:
    """Limits for the OpenAPI document only: SamplingParams checks them and says what it found."""
    return msgspec.Meta(extra_json_schema=dict(limits))


INT32 = 2**31 - 1
"""The engine's messages hold no larger numbers."""


class StreamOptions(msgspec.Struct):
    """`include_usage` adds a last chunk that has the usage and no choices."""

    include_usage: bool | None = None


class JsonSchemaFormat(msgspec.Struct):
    """`schema` is a JSON Schema object; `strict` changes nothing here: the schema is always enforced."""

    schema: dict[str, Any]
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct):
    """What the answer must look like."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchemaFormat | None = None

    def to_guided(self) -> GuidedDecoding | None:
        """Raises InvalidRequestError if the schema is missing."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return GuidedDecoding(json_schema={})
        if self.json_schema is None:
            raise InvalidRequestError(
                "response_format.type is json_schema without a schema; send response_format.json_schema.schema",
                param="response_format.json_schema",
            )
        return GuidedDecoding(json_schema=self.json_schema.schema)


class GenerationFields(msgspec.Struct, kw_only=True):
    """Names and meanings are OpenAI's; from `top_k` on they are vLLM's extensions. null means the default."""

    model: str
    n: Annotated[int, _range(minimum=1, maximum=16)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(le=INT32, extra_json_schema={"minimum": 1})] | None = None
    temperature: Annotated[float, _range(minimum=0, maximum=2)] | None = None
    top_p: Annotated[float, _range(exclusiveMinimum=0, maximum=1)] | None = None
    presence_penalty: Annotated[float, _range(minimum=-2, maximum=2)] | None = None
    frequency_penalty: Annotated[float, _range(minimum=-2, maximum=2)] | None = None
    seed: Annotated[int, _range(minimum=-(2**63), maximum=2**63 - 1)] | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    user: str | None = None
    """Accepted and not used."""
    logit_bias: dict[str, float] | None = None
    """Not supported: anything but null or {} is refused, because ignoring it would change the answer unnoticed."""

    top_k: Annotated[int, msgspec.Meta(le=INT32, extra_json_schema={"minimum": -1})] | None = None
    min_p: Annotated[float, _range(minimum=0, maximum=1)] | None = None
    repetition_penalty: Annotated[float, _range(exclusiveMinimum=0, maximum=10)] | None = None
    min_tokens: Annotated[int, msgspec.Meta(le=INT32, extra_json_schema={"minimum": 0})] | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[Annotated[int, msgspec.Meta(ge=0, le=INT32)]] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    priority: int | str | None = None
    """0 to 2 or "P0" to "P2"; 0 is the most urgent."""
    cache_salt: str | None = None
    """Requests with different salts never share cached prefixes."""
    truncate_prompt_tokens: Annotated[int, msgspec.Meta(ge=1, le=INT32)] | None = None
    """Keep only that many tokens from the end of the prompt."""
    mm_processor_kwargs: dict[str, Any] | None = None

    def sampling(self, max_tokens: int | None, logprobs: int | None) -> SamplingParams:
        """Raises InvalidRequestError naming the field that is out of range."""
        if self.logit_bias:
            raise InvalidRequestError("logit_bias is not supported; leave it out", param="logit_bias")
        given: dict[str, Any] = {name: value for name in _SAMPLING_FIELDS if (value := getattr(self, name)) is not None}
        if self.stop is not None:
            given["stop"] = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        if self.response_format is not None:
            given["guided"] = self.response_format.to_guided()
        return SamplingParams(max_tokens=max_tokens, logprobs=logprobs, **given)

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def ignored_fields(self) -> list[str]:
        """Known fields that are set and have no effect."""
        return ["mm_processor_kwargs"] if self.mm_processor_kwargs else []


_SAMPLING_FIELDS = (
    "n",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "top_k",
    "min_p",
    "repetition_penalty",
    "min_tokens",
    "ignore_eos",
    "stop_token_ids",
    "include_stop_str_in_output",
    "skip_special_tokens",
)


def parse_priority(value: int | str | None, param: str = "priority") -> Priority | None:
    """0..2 or "P0".."P2" (any case) -> Priority. Raises InvalidRequestError for anything else."""
    if value is None:
        return None
    text = str(value).strip().upper().removeprefix("P")
    if text not in ("0", "1", "2"):
        raise InvalidRequestError(f"{param} is {value!r}; it must be 0, 1 or 2, or P0, P1 or P2", param=param)
    return Priority(int(text))
