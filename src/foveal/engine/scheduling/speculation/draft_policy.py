"""Which drafts a step verifies: those that are likely to save more time than they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foveal.engine.scheduling.speculation.step_cost import StepCost

__all__ = ["Candidate", "choose_lengths", "net_gain"]

MARGIN = 1.03
"""A step with drafts must promise that much more tokens per second than one without."""

HOPE = 0.8
"""A draft is tried again now and then only where it would pay at this acceptance: under high load nothing would."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """The drafts of one request, token by token."""

    rates: tuple[float, ...]
    """Chance of each to be accepted, given that those before it are."""
    prices: tuple[float, ...]
    """What drafting each takes, as a share of a plain step."""
    trial: int = 0
    """So many are verified even if they do not pay, to learn whether they would again."""


def choose_lengths(candidates: Sequence[Candidate], num_rows: int, cost: StepCost) -> list[int]:
    """How many drafts of each candidate to verify in a step of `num_rows` decoding requests.

    A token saves a plain step's time per request if it is accepted, and takes its drafting and its share of what the
    step grows by. So a larger batch, where a step is dearer per token and cheaper per request, drafts less.
    """
    offered = sum(len(candidate.rates) for candidate in candidates)
    if not offered:
        return [0] * len(candidates)
    worth = 1.0 / num_rows
    marginal = max(0.0, cost.relative(num_rows + offered, num_rows) - 1.0) / offered
    lengths = [_paying(candidate, worth, marginal) for candidate in candidates]
    total = sum(lengths)
    if total:
        gain = sum(_gain(candidate, length) for candidate, length in zip(candidates, lengths, strict=True))
        drafting = sum(sum(c.prices[:length]) for c, length in zip(candidates, lengths, strict=True))
        slower = cost.relative(num_rows + total, num_rows) + drafting
        if 1.0 + gain * worth < MARGIN * slower:
            lengths = [0] * len(candidates)
    for i, candidate in enumerate(candidates):
        if lengths[i] < candidate.trial <= len(candidate.rates):
            price = marginal + max(candidate.prices[: candidate.trial])
            if worth * HOPE > price:
                lengths[i] = candidate.trial
    return lengths


def net_gain(candidate: Candidate, num_rows: int, cost: StepCost) -> float:
    """Plain steps saved by one candidate alone, its own time taken off."""
    if not candidate.rates:
        return 0.0
    worth, tokens = 1.0 / num_rows, len(candidate.rates)
    slower = cost.relative(num_rows + tokens, num_rows) - 1.0 + sum(candidate.prices)
    return _gain(candidate, tokens) * worth - slower


def _paying(candidate: Candidate, worth: float, marginal: float) -> int:
    """The longest beginning of which each token pays for itself."""
    chance = 1.0
    for count, (rate, price) in enumerate(zip(candidate.rates, candidate.prices, strict=True)):
        chance *= rate
        if chance * worth <= marginal + price:
            return count
    return len(candidate.rates)


def _gain(candidate: Candidate, length: int) -> float:
    """Expected accepted tokens of the first `length`."""
    chance, gain = 1.0, 0.0
    for rate in candidate.rates[:length]:
        chance *= rate
        gain += chance
    return gain
