"""Group sequences of different lengths so that padding stays cheap. Pure; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["BUCKET", "MAX_WASTE", "LengthGroup", "group_by_length", "round_up"]

BUCKET = 8
"""Padded lengths are multiples of this, so that shapes repeat and vector loops have no tails."""

MAX_WASTE = 0.3
"""A group is split before more than this fraction of its padded cells would be padding."""


@dataclass(frozen=True, slots=True)
class LengthGroup:
    """Sequences that are padded to one length and computed in one call."""

    members: tuple[int, ...]
    """Indices into the lengths that were grouped, shortest first."""
    padded_length: int


def round_up(length: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `length`."""
    return -(-length // multiple) * multiple


def group_by_length(lengths: Sequence[int], *, bucket: int = BUCKET, max_waste: float = MAX_WASTE) -> list[LengthGroup]:
    """Partition `lengths` into groups of similar length; every index appears exactly once.

    Going from the shortest, a sequence joins the current group unless padding everything to it would leave more than
    `max_waste` of the cells empty. Groups whose members all have one length are not padded at all.
    """
    groups: list[LengthGroup] = []
    members: list[int] = []
    total = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[index]
        padded = _padded(lengths[members[0]] if members else length, length, bucket)
        if members and 1 - (total + length) / (padded * (len(members) + 1)) > max_waste:
            groups.append(_close(members, lengths, bucket))
            members, total = [], 0
        members.append(index)
        total += length
    if members:
        groups.append(_close(members, lengths, bucket))
    return groups


def _close(members: list[int], lengths: Sequence[int], bucket: int) -> LengthGroup:
    return LengthGroup(tuple(members), _padded(lengths[members[0]], lengths[members[-1]], bucket))


def _padded(shortest: int, longest: int, bucket: int) -> int:
    return longest if shortest == longest else round_up(longest, bucket)
