"""What a configuration field may hold beyond its type. One declaration drives reading, error messages and the JSON schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

__all__ = [
    "KEY",
    "SECRET",
    "SHORTHAND",
    "SIZE",
    "ByteSize",
    "Count",
    "Fraction",
    "Mark",
    "Milliseconds",
    "Port",
    "Positive",
    "PositiveCount",
    "Range",
    "Seconds",
    "Secret",
]


@dataclass(frozen=True, slots=True)
class Range:
    """Inclusive limits of a number; `above` is an exclusive lower one."""

    least: float | None = None
    most: float | None = None
    above: float | None = None

    def problem(self, value: float) -> str | None:
        """What is wrong with `value`, or None."""
        if self.above is not None and value <= self.above:
            return f"must be more than {self.above:g}"
        if self.least is not None and value < self.least:
            return f"must be at least {self.least:g}"
        if self.most is not None and value > self.most:
            return f"must be at most {self.most:g}"
        return None


@dataclass(frozen=True, slots=True)
class Mark:
    name: str


KEY = Mark("key")
"""The field takes the name under which its object stands in a mapping; it is not written itself."""
SECRET = Mark("secret")
"""Never printed: not in a diff, not in an error."""
SHORTHAND = Mark("shorthand")
"""An object of which only this field is given may be written as its bare value."""
SIZE = Mark("size")
"""Bytes: a whole number, or one with a unit (64KiB, 512MiB, 2GiB). Every whole number with `bytes` in its name has it."""

Port = Annotated[int, Range(0, 65535)]
Count = Annotated[int, Range(0)]
PositiveCount = Annotated[int, Range(1)]
ByteSize = Annotated[int, Range(0)]
Seconds = Annotated[float, Range(above=0.0)]
Milliseconds = Annotated[float, Range(0.0)]
Positive = Annotated[float, Range(above=0.0)]
Fraction = Annotated[float, Range(0.0, 1.0)]
Secret = Annotated[str, SECRET]
