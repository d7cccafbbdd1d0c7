"""Is a free-form answer right? Small models answer in a word, large ones in a sentence; both must be judged alike."""

from __future__ import annotations

import re
from collections.abc import Collection

__all__ = ["is_right"]

_COUNTED = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_SPELLINGS = {"grey": "gray", "colour": "color"} | {word: str(number) for number, word in enumerate(_COUNTED)}
_FILLERS = {"a", "an", "the"}


def is_right(answer: str, expected: str, alternatives: Collection[str] = ()) -> bool:
    """True when the answer is the expected one, or a sentence that names it and no other of the `alternatives`.

    Case, articles, punctuation, number words and British spelling do not matter. A yes or no question is decided by the
    first yes or no. `alternatives` are the answers that this kind of question can have: a sentence that lists them all
    is a guess, not an answer.
    """
    said, wanted = _words(answer), _words(expected)
    if said == wanted:
        return True
    if not wanted:
        return False
    if wanted in (["yes"], ["no"]):
        return next(([word] for word in said if word in ("yes", "no")), None) == wanted
    others = [words for words in map(_words, alternatives) if words and words != wanted and not _holds(wanted, words)]
    return _holds(said, wanted) and not any(_holds(said, words) for words in others)


def _holds(said: list[str], words: list[str]) -> bool:
    """Whether `words` stand in `said`, one right after the other."""
    return any(said[i : i + len(words)] == words for i in range(len(said) - len(words) + 1))


def _words(text: str) -> list[str]:
    words = (_SPELLINGS.get(word, word) for word in re.findall(r"\w+", text.lower()))
    return [word for word in words if word not in _FILLERS]
