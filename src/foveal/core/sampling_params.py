"""How to turn logits into tokens, and when to stop. Names follow vLLM and OpenAI."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from foveal.core.errors import InvalidRequestError

__all__ = ["GuidedDecoding", "SamplingParams"]

MAX_N = 16
MAX_STOP_STRINGS = 16
MAX_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class GuidedDecoding:
    """A constraint on the output text: exactly one of the two is set.

    `json_schema` is a JSON Schema object ({} means "any JSON object"); `regex` a Rust-syntax regex.
    """

    json_schema: dict[str, Any] | None = None
    regex: str | None = None

    def __post_init__(self) -> None:
        if (self.json_schema is None) == (self.regex is None):
            raise InvalidRequestError(
                "guided decoding needs exactly one of json_schema and regex", param="response_format"
            )


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Validated once, on construction; raises InvalidRequestError naming the field."""

    n: int = 1
    max_tokens: int | None = 16
    """Most tokens to generate; None means up to the context length."""
    min_tokens: int = 0
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 (or -1) keeps all."""
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    include_stop_str_in_output: bool = False
    logprobs: int | None = None
    """None: none. k: the chosen token's and the k most likely ones' log-probabilities."""
    skip_special_tokens: bool = True
    guided: GuidedDecoding | None = field(default=None)

    def __post_init__(self) -> None:
        if self.top_k == -1:  # vLLM's spelling of "all"
            object.__setattr__(self, "top_k", 0)
        stop: object = self.stop  # OpenAI takes a bare string too
        object.__setattr__(self, "stop", (stop,) if isinstance(stop, str) else tuple(self.stop))
        object.__setattr__(self, "stop_token_ids", tuple(self.stop_token_ids))
        self._integer("n", self.n, 1, MAX_N)
        if self.max_tokens is not None:
            self._integer("max_tokens", self.max_tokens, 1)
        self._integer("min_tokens", self.min_tokens, 0)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidRequestError(
                f"min_tokens is {self.min_tokens}, above max_tokens {self.max_tokens}; lower it", param="min_tokens"
            )
        self._number("temperature", self.temperature, 0.0, 2.0)
        self._number("top_p", self.top_p, 0.0, 1.0, open_low=True)
        self._integer("top_k", self.top_k, 0)
        self._number("min_p", self.min_p, 0.0, 1.0)
        self._number("repetition_penalty", self.repetition_penalty, 0.0, 10.0, open_low=True)
        self._number("presence_penalty", self.presence_penalty, -2.0, 2.0)
        self._number("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        if self.seed is not None:
            self._integer("seed", self.seed, -(2**63), 2**63 - 1)
        if self.logprobs is not None:
            self._integer("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        if len(self.stop) > MAX_STOP_STRINGS:
            raise InvalidRequestError(
                f"stop has {len(self.stop)} strings; the limit is {MAX_STOP_STRINGS}", param="stop"
            )
        if any(not isinstance(s, str) or not s for s in self.stop):
            raise InvalidRequestError("stop strings must be non-empty strings", param="stop")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0

    def with_max_tokens(self, max_tokens: int) -> SamplingParams:
        return replace(self, max_tokens=max_tokens, min_tokens=min(self.min_tokens, max_tokens))

    @staticmethod
    def _integer(name: str, value: object, low: int, high: int | None = None) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidRequestError(f"{name} must be an integer, not {type(value).__name__}", param=name)
        if value < low or (high is not None and value > high):
            limit = f"at least {low}" if high is None else f"between {low} and {high}"
            raise InvalidRequestError(f"{name} is {value}; it must be {limit}", param=name)

    @staticmethod
    def _number(name: str, value: object, low: float, high: float, *, open_low: bool = False) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise InvalidRequestError(f"{name} must be a finite number, not {value!r}", param=name)
        if value > high or value < low or (open_low and value == low):
            bracket = "(" if open_low else "["
            raise InvalidRequestError(f"{name} is {value}; it must be in {bracket}{low:g}, {high:g}]", param=name)
