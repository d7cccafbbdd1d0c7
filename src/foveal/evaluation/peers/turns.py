"""Who is measured when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

__all__ = ["turns"]

T = TypeVar("T")


def turns(participants: Sequence[T], rounds: int) -> Iterator[tuple[int, T]]:
    """(round, participant): everyone once a round. Each round begins one further on and every other one runs backwards,
    so that nobody always follows the same neighbour or gets the machine's best minute."""
    for number in range(rounds):
        start = number % len(participants) if participants else 0
        order = [*participants[start:], *participants[:start]]
        yield from ((number, participant) for participant in (reversed(order) if number % 2 else order))
