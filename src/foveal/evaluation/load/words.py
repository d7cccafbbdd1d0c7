"""Text of a wanted length in tokens, without knowing the server's tokenizer."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["TokenScale", "random_words"]

# Frequent English words: one token each, with the space before them, in nearly every BPE vocabulary.
_TEXT = (
    "the of and to in is was he for it with as his on be at by had not are but from or have an they which one you were "
    "her all she there would their we him been has when who will more no if out so said what up its about into than "
    "them can only other new some could time these two may then do first any my now such like our over man me even most "
    "made after also did many before must through back years where much your way well down should because each just "
    "those people how too little state good very make world still own see men work long get here between both life "
    "being under never day same another know while last might us great old year off come since against go came right"
)
_WORDS = _TEXT.split()


@dataclass(frozen=True, slots=True)
class TokenScale:
    """What a server's tokenizer and chat template make of text, measured by two probes.

    prompt tokens = `overhead_tokens` + `tokens_per_word` * words.
    """

    overhead_tokens: float = 0.0
    tokens_per_word: float = 1.0

    @classmethod
    def from_probes(cls, short: tuple[int, int], long: tuple[int, int]) -> TokenScale:
        """Each probe is (words sent, prompt tokens reported); falls back to one token per word where they make no sense."""
        words, tokens = long[0] - short[0], long[1] - short[1]
        if words <= 0 or tokens <= 0:
            return cls()
        per_word = tokens / words
        return cls(max(0.0, short[1] - per_word * short[0]), per_word)

    def words_for(self, num_tokens: int) -> int:
        """Words that make `num_tokens` tokens of text, the template's overhead not included; at least 0."""
        return max(0, round(num_tokens / self.tokens_per_word))


def random_words(count: int, rng: random.Random) -> str:
    """`count` random words, so that no two texts share a long prefix."""
    return " ".join(rng.choices(_WORDS, k=count))
