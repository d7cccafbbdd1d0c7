"""How often two models say the same."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["exact_agreement", "top1_agreement"]


def exact_agreement(ours: Sequence[str], theirs: Sequence[str]) -> float:
    """Share (0..1) of greedy answers that are equal, word for word. Raises ValueError for different numbers or none."""
    return _share([a == b for a, b in zip(ours, _as_many(ours, theirs), strict=True)])


def top1_agreement(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> float:
    """Share (0..1) of positions with the same most likely token; one sequence of token ids per prompt.

    Positions are teacher-forced, so that one different token does not spoil those after it.
    """
    pairs = zip(ours, _as_many(ours, theirs), strict=True)
    return _share([a == b for row, other in pairs for a, b in zip(row, other, strict=True)])


def _as_many(ours: Sequence[object], theirs: Sequence[object]) -> Sequence:  # type: ignore[type-arg]
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"{len(ours)} results against {len(theirs)}; the same prompts must be given to both models")
    return theirs


def _share(equal: Sequence[bool]) -> float:
    return sum(equal) / len(equal)
