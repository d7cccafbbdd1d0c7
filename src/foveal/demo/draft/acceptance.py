"""How often the draft says what the target says: on the target's own greedy answers, which is where it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import LlamaForCausalLM

from foveal.demo.draft.target import Target
from foveal.demo.draft.writing import WrittenText, embed

__all__ = ["Acceptance", "hits", "measure"]


@dataclass(frozen=True)
class Acceptance:
    """`agreement`: share of answer tokens (the end of turn counts) where the most likely token is the target's.
    `tokens_per_round`: what one verification gives on average when `guesses` tokens are drafted, the target's own
    token included."""

    answers: int
    tokens: int
    agreement: float
    guesses: int
    tokens_per_round: float

    @classmethod
    def of(cls, answers: Sequence[Sequence[bool]], guesses: int = 4) -> Acceptance:
        """From the hits of each answer. Exact for greedy decoding: up to its first miss a draft sees what the target
        wrote, and what it says after a miss is thrown away."""
        tokens = sum(map(len, answers))
        rounds = sum(_rounds(answer, guesses) for answer in answers)
        right = sum(map(sum, answers))
        return cls(len(answers), tokens, right / max(1, tokens), guesses, tokens / max(1, rounds))


@torch.inference_mode()
def hits(target: Target, draft: LlamaForCausalLM, text: WrittenText) -> list[bool]:
    """For each answer token: is it the draft's most likely one after everything before it?"""
    x = embed(target, text.ids[:-1], text.patches)
    states = draft.model(inputs_embeds=x[None], use_cache=False).last_hidden_state[0, text.first :]
    best = draft.lm_head(states).argmax(-1)
    found: list[bool] = (best == torch.tensor(text.ids[text.first + 1 :])).tolist()
    return found


def measure(target: Target, draft: LlamaForCausalLM, texts: Sequence[WrittenText], guesses: int = 4) -> Acceptance:
    return Acceptance.of([hits(target, draft, text) for text in texts], guesses)


def _rounds(answer: Sequence[bool], guesses: int) -> int:
    """Verifications that an answer takes: each ends with the target's token after the first miss or after all guesses."""
    place, rounds = 0, 0
    while place < len(answer):
        guessed = 0
        while guessed < guesses and place < len(answer) and answer[place]:
            guessed += 1
            place += 1
        place += 1
        rounds += 1
    return rounds
