"""Guided decoding: a JSON schema or a regex decides which tokens may come next. Built on llguidance.

A grammar is compiled once (0.1-5 ms for everyday schemas, up to seconds for extreme ones; the GIL is released) and
cached; each choice then walks its own `Guide`. The state lives with the request, not with its KV cache, so preemption
does not touch it. A front end may hold a factory of its own and call `validate` to refuse a bad schema early.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from llguidance import LLMatcher, LLTokenizer

from foveal.core.errors import ConfigurationError, InvalidRequestError
from foveal.core.sampling_params import GuidedDecoding
from foveal.engine.text.token_bytes import backend_of

__all__ = ["Guide", "GuideFactory"]

MAX_GRAMMAR_BYTES = 64 * 1024
"""Of a schema as compact JSON, or a regex. llguidance bounds its own work (lexer fuel) within that."""

MAX_CACHED_GRAMMARS = 256

WHITESPACE = r"[\x20\x0A\x0D\x09]{0,24}"
"""Between JSON tokens. Bounded: small models can otherwise indent for ever; 24 is a line break at a depth of eleven."""


class Guide:
    """Where one choice stands in its grammar."""

    def __init__(self, matcher: LLMatcher, num_tokens: int) -> None:
        self._matcher = matcher
        self._num_words = (num_tokens + 31) // 32

    @property
    def is_complete(self) -> bool:
        """The text satisfies the grammar and cannot be extended: only eos is allowed from here on."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    @property
    def is_accepting(self) -> bool:
        """The text satisfies the grammar; it may be extendable."""
        return bool(self._matcher.is_accepting())

    @property
    def error(self) -> str | None:
        """Why the guide gave up (a token it had forbidden, or too much work for one step), if it did.

        It then allows eos only; what was generated may be an invalid beginning, so end the choice with an error.
        """
        return self._matcher.get_error().splitlines()[0] if self._matcher.is_error() else None

    def write_mask(self, out: torch.Tensor) -> None:
        """Write the tokens allowed next: int32 [words], contiguous, on the CPU; bit i % 32 of word i // 32 is token i.

        `out` may be longer than the vocabulary of the tokenizer (padded embeddings): ids beyond are forbidden. It may be
        shorter too (added tokens without an embedding): ids beyond are dropped.
        """
        if len(out) == self._num_words:
            self._matcher.unsafe_compute_mask_ptr(out.data_ptr(), 4 * len(out))
            return
        mask = torch.zeros(self._num_words, dtype=torch.int32)
        self._matcher.unsafe_compute_mask_ptr(mask.data_ptr(), 4 * len(mask))
        common = min(len(out), len(mask))
        out[:common] = mask[:common]
        out[common:] = 0

    def advance(self, token_id: int) -> None:
        """Take the next token of the output. A forbidden one sets `error`."""
        self._matcher.consume_token(token_id)

    def forced_tokens(self) -> list[int]:
        """Tokens that must come next, as the tokenizer would cut the text that the grammar leaves no choice about.

        Other cuts of that text may be allowed as well: these are guesses, though good ones.
        """
        return [int(token_id) for token_id in self._matcher.compute_ff_tokens()]

    def count_allowed(self, token_ids: Sequence[int]) -> int:
        """How many of `token_ids`, in this order from here, the grammar allows."""
        return int(self._matcher.validate_tokens(list(token_ids)))

    def clone(self) -> Guide:
        """An independent guide at the same place: one per choice."""
        return Guide(self._matcher.deep_copy(), 32 * self._num_words)


class GuideFactory:
    """Compiles guides for one tokenizer. Thread-safe; keeps the latest grammars."""

    def __init__(self, tokenizer: Any, eos_token_ids: Sequence[int]) -> None:
        """`tokenizer`: a HF fast tokenizer or a `tokenizers.Tokenizer`. Takes 0.1-1 s for large vocabularies.

        Raises ConfigurationError without an eos token, because no guided output could ever end.
        """
        if not eos_token_ids:
            raise ConfigurationError(
                "guided decoding needs an end-of-sequence token and the model names none; "
                "set eos_token_id in its generation_config.json"
            )
        serialised = _without_padding(backend_of(tokenizer).to_str())
        self._tokenizer = LLTokenizer(serialised, eos_token=list(eos_token_ids))
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, guided: GuidedDecoding) -> Guide:
        """A guide at the start of the output.

        Raises InvalidRequestError (param response_format) for schemas or regexes that cannot be followed.
        """
        grammar = _grammar_of(guided)
        with self._lock:
            matcher = self._compiled.get(grammar)
            if matcher is not None:
                self._compiled.move_to_end(grammar)
        if matcher is None:
            matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
            if matcher.is_error():
                raise _refusal(guided, matcher.get_error())
            with self._lock:
                self._compiled[grammar] = matcher
                while len(self._compiled) > MAX_CACHED_GRAMMARS:
                    self._compiled.popitem(last=False)
        return Guide(matcher.deep_copy(), self._tokenizer.vocab_size)

    def validate(self, guided: GuidedDecoding) -> None:
        """Raise what `compile` would raise."""
        self.compile(guided)


def _grammar_of(guided: GuidedDecoding) -> str:
    if guided.regex is not None:
        _check_size("the regex", len(guided.regex.encode()))
        return str(LLMatcher.grammar_from_regex(guided.regex))
    try:
        schema = json.dumps(guided.json_schema or {"type": "object"}, separators=(",", ":"), ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise _refusal(guided, f"not JSON: {error}") from error
    _check_size("the JSON schema", len(schema.encode(errors="replace")))
    return str(LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": WHITESPACE}))


def _check_size(what: str, num_bytes: int) -> None:
    if num_bytes > MAX_GRAMMAR_BYTES:
        raise InvalidRequestError(
            f"{what} has {num_bytes:,} bytes; the limit is {MAX_GRAMMAR_BYTES:,}. Simplify it.", param="response_format"
        )


def _refusal(guided: GuidedDecoding, reason: str) -> InvalidRequestError:
    what = "the JSON schema" if guided.regex is None else "the regex"
    first = " ".join(reason.strip().split("\n<state>")[0].split())[:300]
    return InvalidRequestError(
        f"{what} cannot be used for guided decoding: {first}. Remove or rewrite that part.", param="response_format"
    )


def _without_padding(serialised: str) -> str:
    spec = json.loads(serialised)
    spec["padding"] = spec["truncation"] = None
    return json.dumps(spec)
