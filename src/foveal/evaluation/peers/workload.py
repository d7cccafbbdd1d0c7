"""What every engine is asked: prompts of random tokens, equal for all."""

from __future__ import annotations

import random
from dataclasses import dataclass

from foveal.core.errors import ConfigurationError

__all__ = ["Workload", "parse_workload"]

_FIRST_TOKEN = 5
"""Special tokens have lower ids in the vocabularies at hand."""


@dataclass(frozen=True, order=True)
class Workload:
    """`concurrency` prompts at once."""

    concurrency: int
    prompt_tokens: int
    new_tokens: int

    def __str__(self) -> str:
        return f"{self.concurrency} x {self.prompt_tokens}+{self.new_tokens}"

    def prompts(self, vocabulary: int, seed: int) -> list[list[int]]:
        """Different for every seed, so that no cache of prefixes can help."""
        draw = random.Random(f"{seed} {self}")
        return [
            [draw.randrange(_FIRST_TOKEN, vocabulary) for _ in range(self.prompt_tokens)]
            for _ in range(self.concurrency)
        ]


def parse_workload(text: str) -> Workload:
    """ "16x128+64": concurrency, prompt tokens, new tokens. Raises ConfigurationError."""
    try:
        concurrency, _, lengths = text.partition("x")
        prompt, _, new = lengths.partition("+")
        workload = Workload(int(concurrency), int(prompt), int(new))
    except ValueError:
        workload = Workload(0, 0, 0)
    if min(workload.concurrency, workload.prompt_tokens) < 1 or workload.new_tokens < 2:
        raise ConfigurationError(
            f"{text!r} is no workload; write CONCURRENCYxPROMPT+NEW with at least 2 new tokens, for example 16x128+128"
        )
    return workload
