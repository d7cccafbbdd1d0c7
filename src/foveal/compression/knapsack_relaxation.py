"""The linear relaxation of the multiple-choice knapsack: bounds for the groups from any one to the last. No torch.

Within a group only options on the lower convex hull of (cost, damage) matter to the relaxation, and moving along the hull
gives ever less relief per byte. Taking all groups' moves in order of relief per byte solves the relaxation for every
budget at once; the last move taken in part is all that separates it from a whole-numbered solution.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Relaxation", "undominated"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def undominated(points: Sequence[tuple[int, float]]) -> list[int]:
    """Indices of the (cost, damage) points that no cheaper-or-equal point beats or equals, by ascending cost."""
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda one: (*points[one], one)):
        if not front or points[index][1] < points[front[-1]][1]:
            front.append(index)
    return front


class Relaxation:
    """`extra[i]` ascending costs above the group's cheapest option, `damage[i]` descending."""

    def __init__(self, extra: Sequence[Ints], damage: Sequence[Floats]) -> None:
        self._extra, self._damage = extra, damage
        moves = [
            (-(damage[i][to] - damage[i][at]) / float(extra[i][to] - extra[i][at]), i, at, to)
            for i in range(len(extra))
            for at, to in _hull_moves(extra[i], damage[i])
        ]
        # By relief per byte, steepest first; in a group that is also the order along the hull.
        self._moves = [(i, at, to) for _, i, at, to in sorted(moves, key=lambda move: (-move[0], move[1], move[2]))]
        first = [float(values[0]) for values in damage]
        self._lines = [self._line(start, sum(first[start:])) for start in range(len(extra) + 1)]

    def bound(self, start: int, slack: Ints) -> Floats:
        """Least damage of groups `start` to the last, in parts, for each of the slacks (negative ones count as 0)."""
        costs, damages = self._lines[start]
        return np.interp(np.maximum(slack, 0), costs, damages)

    def round_down(self, start: int, slack: int) -> tuple[float, list[int]]:
        """A whole solution of groups `start` to the last: every move that still fits, in order, then any option better
        than the one taken that fits what is left. Its damage and its option per group."""
        position = [0] * (len(self._extra) - start)
        for i, at, to in self._moves:
            step = int(self._extra[i][to] - self._extra[i][at])
            if i >= start and position[i - start] == at and step <= slack:
                position[i - start] = to
                slack -= step
        for offset in range(len(position)):
            extra = self._extra[start + offset]
            reachable = int(np.searchsorted(extra, extra[position[offset]] + slack, side="right")) - 1
            slack -= int(extra[reachable] - extra[position[offset]])
            position[offset] = reachable
        return sum(float(self._damage[start + offset][at]) for offset, at in enumerate(position)), position

    def _line(self, start: int, least_cost_damage: float) -> tuple[Floats, Floats]:
        """Corners of damage against slack."""
        moves = [move for move in self._moves if move[0] >= start]
        steps = [float(self._extra[i][to] - self._extra[i][at]) for i, at, to in moves]
        relief = [float(self._damage[i][to] - self._damage[i][at]) for i, at, to in moves]
        return np.cumsum([0.0, *steps]), np.cumsum([least_cost_damage, *relief])


def _hull_moves(extra: Ints, damage: Floats) -> list[tuple[int, int]]:
    """Neighbouring corners of the lower convex hull, as (from, to) positions."""
    hull: list[int] = []
    for index in range(len(extra)):
        while len(hull) > 1 and _above(extra, damage, hull[-2], hull[-1], index):
            hull.pop()
        hull.append(index)
    return list(itertools.pairwise(hull))


def _above(extra: Ints, damage: Floats, left: int, middle: int, right: int) -> bool:
    """True if the middle point is on or above the line from left to right."""
    run = float(extra[right] - extra[left])
    line = damage[left] * float(extra[right] - extra[middle]) + damage[right] * float(extra[middle] - extra[left])
    return bool(damage[middle] * run >= line)
