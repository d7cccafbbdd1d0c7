"""Find stop strings in streamed text, and never let a part of one out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["StopMatch", "StopStrings"]


@dataclass(frozen=True, slots=True)
class StopMatch:
    """Text that may be sent now, and the stop string that ended the output, if one did."""

    text: str
    stop: str | None = None


class StopStrings:
    """Holds back the longest end of the text that may be the beginning of a stop string.

    The match is the one that is *complete* first, the longest if several are at once; so it does not depend on how the
    text was cut into deltas. One Knuth-Morris-Pratt automaton per string: O(1) amortised per character and string.
    """

    def __init__(self, stops: Sequence[str], *, include_in_output: bool = False) -> None:
        self._automata = [_Automaton(stop) for stop in sorted(set(stops), key=len, reverse=True)]
        self._include_in_output = include_in_output
        self._held = ""

    def push(self, text: str, *, armed: bool = True) -> StopMatch:
        """Take in more text. While not `armed` (before min_tokens) complete matches are let through.

        Do not push again after a match.
        """
        if not self._automata:
            return StopMatch(text)
        if not text:
            return StopMatch("")
        buffer = self._held + text
        for position in range(len(self._held), len(buffer)):
            char = buffer[position]
            matched = None
            for automaton in self._automata:  # longest first, so the first that is complete starts earliest
                if automaton.step(char) and matched is None:
                    matched = automaton.pattern
            if matched is not None and armed:
                self._held = ""
                end = position + 1
                return StopMatch(buffer[: end if self._include_in_output else end - len(matched)], matched)
        num_held = max(automaton.state for automaton in self._automata)
        cut = len(buffer) - num_held
        self._held = buffer[cut:]
        return StopMatch(buffer[:cut])

    def flush(self) -> str:
        """The text held back; it turned out to be no stop string, because the output has ended."""
        held, self._held = self._held, ""
        return held


class _Automaton:
    """Progress of one pattern: `state` characters of it are the end of the text so far (always fewer than all)."""

    __slots__ = ("_fallback", "pattern", "state")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.state = 0
        self._fallback = [0] * len(pattern)
        k = 0
        for i in range(1, len(pattern)):
            while k and pattern[i] != pattern[k]:
                k = self._fallback[k - 1]
            k += pattern[i] == pattern[k]
            self._fallback[i] = k

    def step(self, char: str) -> bool:
        """Take one character; True if the pattern ends with it."""
        k = self.state
        while k and char != self.pattern[k]:
            k = self._fallback[k - 1]
        k += char == self.pattern[k]
        complete = k == len(self.pattern)
        self.state = self._fallback[k - 1] if complete else k
        return complete
