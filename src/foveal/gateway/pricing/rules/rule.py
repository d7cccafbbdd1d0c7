"""The seam of vision pricing: a picture's size -> what it takes in the prompt and in the encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Options", "VisionRule", "VisionWork", "integer", "number"]

Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class VisionWork:
    num_tokens: int
    """Image tokens in the prompt."""
    marker_tokens: int
    """Further tokens around and between them: begin, end, row and column marks."""
    num_patches: int
    """Patches that the encoder computes, over all tiles."""


class VisionRule(Protocol):
    """Pure and exact for one family. One contract test for all; the oracle is the family's own image processor."""

    def work(self, width: int, height: int, single_view: bool) -> VisionWork:
        """`single_view` asks families with tiles for the global view alone, as our engine does at detail low."""
        ...


def integer(options: Options, name: str, default: int) -> int:
    """Raises ValueError for a value that is no positive whole number."""
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be a whole number of at least 1")
    return int(value)


def number(options: Options, name: str, default: float) -> float:
    """Raises ValueError for a value that is not above 0."""
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"{name} is {value!r}; it must be a number above 0")
    return float(value)
