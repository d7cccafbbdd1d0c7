"""What the sampler needs to know about one row of logits, and what it says about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from foveal.core.sampling_params import SamplingParams
from foveal.engine.execution.sampling.history import TokenHistory
from foveal.engine.outputs import TokenLogprob

__all__ = ["GuideState", "SampledToken", "SamplingRow"]

MIN_TEMPERATURE = 1e-5
"""Below it logits / temperature may overflow fp32. The distribution is a point there anyway, so it counts as greedy."""


class GuideState(Protocol):
    """The seam to guided decoding: which tokens may come next. `execution/guided.py` implements it."""

    def write_mask(self, out: torch.Tensor) -> None:
        """Write a bitmask, int32 [ceil(vocab / 32)] on the CPU: bit i % 32 of word i // 32 allows token i."""

    def advance(self, token_id: int) -> None:
        """Take the next token of the output."""

    def clone(self) -> GuideState:
        """An independent guide at the same place."""

    def forced_tokens(self) -> list[int]:
        """Tokens that very likely come next, because the grammar leaves no choice about their text."""

    def count_allowed(self, token_ids: Sequence[int]) -> int:
        """How many of `token_ids`, in this order from here, may come next."""


@dataclass(slots=True, eq=False)
class SamplingRow:
    """The sampling state of one sequence. Make it once per sequence and keep it: penalties then cost O(1) per token.

    `prompt_token_ids` and `output_token_ids` are the sequence's live lists; the sampler never writes to them.
    `choices` are the choice indices to draw from this row: all n of them when an n-choice prompt completes, else one.
    `seed` is the request's stream seed (`stream_seed(params)` once at arrival, shared by its n choices).
    """

    params: SamplingParams
    prompt_token_ids: Sequence[int]
    output_token_ids: Sequence[int]
    seed: int
    choices: tuple[int, ...] = (0,)
    eos_token_ids: tuple[int, ...] = ()
    guide: GuideState | None = None
    _history: TokenHistory | None = field(default=None, repr=False)

    greedy: bool = field(init=False, repr=False)
    has_penalties: bool = field(init=False, repr=False)
    _never_changed: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Asked in every step, and always the same.
        p = self.params
        self.greedy = p.temperature < MIN_TEMPERATURE
        self.has_penalties = p.repetition_penalty != 1.0 or p.presence_penalty != 0.0 or p.frequency_penalty != 0.0
        self._never_changed = not self.has_penalties and p.min_tokens == 0 and self.guide is None

    @property
    def forbidden_token_ids(self) -> tuple[int, ...]:
        """Tokens that would end the output before `min_tokens`; empty once it is reached."""
        if len(self.output_token_ids) >= self.params.min_tokens:
            return ()
        return self.eos_token_ids + self.params.stop_token_ids

    @property
    def changes_logits(self) -> bool:
        """A penalty, a guide or min_tokens has a say in the next token."""
        if self._never_changed:
            return False
        return self.has_penalties or self.guide is not None or bool(self.forbidden_token_ids)

    @property
    def is_plain_greedy(self) -> bool:
        """The raw argmax is the answer, and nothing but the token is wanted."""
        return self.greedy and self.params.logprobs is None and not self.changes_logits

    def history(self) -> TokenHistory:
        """Counts of the tokens so far, brought up to date: O(tokens since the last call)."""
        if self._history is None:
            self._history = TokenHistory(self.prompt_token_ids)
        self._history.update(self.output_token_ids)
        return self._history

    def ahead(self, token_ids: Sequence[int]) -> list[SamplingRow]:
        """This row as it will be if its output goes on with the first 0, 1, ... len(token_ids) of `token_ids`.

        The first one is the row itself. The guide must allow all of them. Nothing here changes when the others are used.
        """
        rows = [self]
        guide, history = self.guide, None
        for count in range(1, len(token_ids) + 1):
            if guide is not None:
                guide = guide.clone()
                guide.advance(token_ids[count - 1])
            if self.has_penalties:
                history = self.history().copy()
            output = [*self.output_token_ids, *token_ids[:count]]
            rows.append(replace(self, output_token_ids=output, guide=guide, _history=history))
        return rows


@dataclass(frozen=True, slots=True)
class SampledToken:
    token_id: int
    logprob: TokenLogprob | None = None
