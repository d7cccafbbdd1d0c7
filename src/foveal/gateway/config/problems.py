"""What is wrong with a configuration file: all of it at once, each with its line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from foveal.core.errors import ConfigurationError

__all__ = ["Place", "Problem", "Problems", "shown", "suggestion"]

Place = tuple[str | int, ...]
"""Names from the root to a value. Not text with dots: model names have dots too."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    line: int
    """From 1; 0 where no line is to blame."""
    message: str


class Problems:
    """Collects problems of one file. Messages say what was found, what is allowed and what to do."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._found: list[Problem] = []
        self._lines: dict[Place, int] = {}

    def at(self, place: Place, line: int) -> None:
        """Remember in which line the value at `place` stands."""
        self._lines[place] = line

    def line_of(self, place: Place) -> int:
        """Of the value, or of the closest object around it that is in the file."""
        while place and place not in self._lines:
            place = place[:-1]
        return self._lines.get(place, 0)

    def add(self, place: Place, message: str, line: int | None = None) -> None:
        where = f"{shown(place)}: " if place else ""
        self._found.append(Problem(self.line_of(place) if line is None else line, f"{where}{message}"))

    def __bool__(self) -> bool:
        return bool(self._found)

    def raise_if_any(self) -> None:
        """Raises ConfigurationError with one line for each problem, in the file's order."""
        if self._found:
            lines = [
                f"{self._file}:{found.line}: {found.message}" if found.line else f"{self._file}: {found.message}"
                for found in sorted(set(self._found))
            ]
            raise ConfigurationError("\n".join(lines))


def shown(place: Place) -> str:
    """models.a.weight"""
    return ".".join(map(str, place))


def suggestion(name: str, known: Iterable[str]) -> str:
    """'; did you mean X?', or the list of what there is."""
    choices = list(known)
    close = difflib.get_close_matches(name.replace("-", "_").lower(), choices, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    if not choices:
        return ""
    return f"; known: {', '.join(sorted(choices))}" if len(choices) <= 24 else ""
