"""Choose one option per group so that the damage is least and the bytes fit a budget. No torch.

This is the multiple-choice knapsack problem. It is solved by dynamic programming over undominated (bytes, damage) states,
where a state is dropped as soon as the linear relaxation of the groups still to come proves that it cannot beat the best
solution known. With at most `max_states` states at a time the result is exact; beyond that, the least promising are
dropped and the relaxation's value of the best one dropped is a proven bound. Source: Pisinger, "A minimal algorithm for
the multiple-choice knapsack problem", 1995.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from foveal.compression.knapsack_relaxation import Relaxation, undominated
from foveal.core.errors import ConfigurationError

__all__ = ["Allocation", "Option", "choose", "parse_budget", "solve"]

MAX_STATES = 50_000
_COMPLETED_PER_STAGE = 2
_RELATIVE_ROUNDING = 1e-12

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:(%)|(|k|m|g|ki|mi|gi)b)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Option:
    """One way to store a group. Damage is in any unit that adds up over groups (nats, here)."""

    cost_bytes: int
    damage: float
    label: str


@dataclass(frozen=True, slots=True)
class Allocation:
    """What was chosen, and how good it can be at best."""

    choice: tuple[int, ...]
    """Index into the options of each group."""
    cost_bytes: int
    damage: float
    bound: float
    """No choice within the budget does less damage than this."""

    @property
    def gap(self) -> float:
        """Damage above the bound; 0: proven optimal (up to rounding, 1e-12 of the largest total)."""
        return max(0.0, self.damage - self.bound)


def choose(options: Sequence[Sequence[Option]], budget_bytes: int) -> Sequence[int]:
    """Index of the option to take for each group; see `solve`."""
    return solve(options, budget_bytes).choice


def solve(options: Sequence[Sequence[Option]], budget_bytes: int, *, max_states: int = MAX_STATES) -> Allocation:
    """The least damage in at most `budget_bytes`. Deterministic; among equals the cheaper state wins.

    Raises ConfigurationError with the least possible size if nothing fits, ValueError for a group without options or a
    damage that is not finite.
    """
    for number, group in enumerate(options):
        if not group or not all(math.isfinite(option.damage) for option in group):
            raise ValueError(f"group {number} has no options, or one whose damage is not finite: {list(group)[:4]}")
    fronts = [undominated([(option.cost_bytes, option.damage) for option in group]) for group in options]
    least = sum(group[front[0]].cost_bytes for group, front in zip(options, fronts, strict=True))
    if least > budget_bytes:
        raise ConfigurationError(
            f"the budget is {budget_bytes:,} bytes, but the smallest choice for every group takes {least:,}. Raise the "
            "budget to that or more, or allow fewer bits."
        )
    # Groups with much to decide first: their states are pruned while few others are open.
    order = sorted(range(len(options)), key=lambda number: -_span(options[number], fronts[number]))
    choice, bound = _search(
        [[options[number][index] for index in fronts[number]] for number in order], budget_bytes - least, max_states
    )
    chosen = [0] * len(options)
    for number, position in zip(order, choice, strict=True):
        chosen[number] = fronts[number][position]
    taken = [group[index] for group, index in zip(options, chosen, strict=True)]
    damage = math.fsum(option.damage for option in taken)
    return Allocation(tuple(chosen), sum(option.cost_bytes for option in taken), damage, min(bound, damage))


def parse_budget(text: str, base_bytes: int) -> int:
    """`60%` (of `base_bytes`, the model in 16 bits), `90MB` (10^6), `90MiB` (2^20), `1.2GB` -> bytes, rounded down."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or Fraction(match[1]) == 0:
        raise ConfigurationError(
            f"budget {text!r} is not a size. Write a share of the 16-bit size (60%) or bytes with a unit (90MB, 85.5MiB)."
        )
    if match[2]:
        return int(Fraction(match[1]) * base_bytes / 100)
    return int(Fraction(match[1]) * _UNITS[match[3].lower()])


def _span(group: Sequence[Option], front: Sequence[int]) -> int:
    return group[front[-1]].cost_bytes - group[front[0]].cost_bytes


@dataclass(frozen=True, slots=True)
class _Stage:
    """Where each state of a stage came from."""

    parent: npt.NDArray[np.int32]
    option: npt.NDArray[np.int16]


def _search(groups: list[list[Option]], slack: int, max_states: int) -> tuple[list[int], float]:
    """(position in each group, bound or infinity if the choice is optimal).

    Groups are fronts of ascending cost; `slack` is what may be spent above their cheapest options."""
    extra = [np.array([option.cost_bytes - group[0].cost_bytes for option in group], np.int64) for group in groups]
    damage = [np.array([option.damage for option in group], np.float64) for group in groups]
    relaxation = Relaxation(extra, damage)
    rounding = _RELATIVE_ROUNDING * max(1e-300, sum(float(np.abs(values).max()) for values in damage))
    best_value, best_choice = relaxation.round_down(0, slack)
    dropped = math.inf
    costs, values = np.zeros(1, np.int64), np.zeros(1, np.float64)
    stages: list[_Stage] = []
    for number in range(len(groups)):
        count = len(costs)
        all_costs = (costs[None] + extra[number][:, None]).reshape(-1)
        all_values = (values[None] + damage[number][:, None]).reshape(-1)
        bounds = all_values + relaxation.bound(number + 1, slack - all_costs)
        keep = np.flatnonzero((all_costs <= slack) & (bounds < best_value - rounding))
        keep = keep[np.lexsort((all_values[keep], all_costs[keep]))]
        least_before = np.minimum.accumulate(np.concatenate(([np.inf], all_values[keep])))[:-1]
        keep = keep[all_values[keep] < least_before]
        if len(keep) > max_states:
            ranked = np.argsort(bounds[keep], kind="stable")
            dropped = min(dropped, float(bounds[keep[ranked[max_states]]]))
            keep = keep[np.sort(ranked[:max_states])]
        stages.append(_Stage((keep % count).astype(np.int32), (keep // count).astype(np.int16)))
        costs, values = all_costs[keep], all_values[keep]
        for state in np.argsort(bounds[keep], kind="stable")[:_COMPLETED_PER_STAGE]:
            rest_value, rest = relaxation.round_down(number + 1, slack - int(costs[state]))
            if float(values[state]) + rest_value < best_value:
                best_value = float(values[state]) + rest_value
                best_choice = _trace(stages, int(state)) + rest
        if not len(keep):
            break
    # Nothing dropped could have been better: the choice itself is the bound.
    return best_choice, dropped if dropped < best_value else math.inf


def _trace(stages: list[_Stage], state: int) -> list[int]:
    """Options on the way to a state of the last stage."""
    way = []
    for stage in reversed(stages):
        way.append(int(stage.option[state]))
        state = int(stage.parent[state])
    return way[::-1]
