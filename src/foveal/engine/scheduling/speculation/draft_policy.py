"""Which drafts a step verifies: those that are likely to save more time than they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foveal.engine.scheduling.speculation.step_cost import StepCost

__all__ = ["Candidate", "choose_lengths", "net_gain"]

MARGIN = 1.03
"""A step with drafts must promise that much more tokens per second than one without."""

LIMITS = (2, 1, 3, 4, 6, 8, 12)
FEW_REQUESTS = 16
"""With more only the first limit and none are compared: the choice must not take longer than it saves."""

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
    step grows by. So a larger batch, where a step is dearer per token and cheaper per request, drafts less. Steps do not
    grow evenly (kernels change with the number of rows), so several common limits are compared.
    """
    longest = max((len(candidate.rates) for candidate in candidates), default=0)
    if not longest:
        return [0] * len(candidates)
    worth = 1.0 / num_rows
    limits = LIMITS if len(candidates) <= FEW_REQUESTS else LIMITS[:1]
    best, lengths = MARGIN, [0] * len(candidates)
    for limit in (*(limit for limit in limits if limit < longest), longest):
        found = _limited(candidates, num_rows, cost, limit)
        promise = _promise(candidates, found, num_rows, cost)
        if promise > best:
            best, lengths = promise, found
    total = sum(lengths) or sum(min(longest, len(candidate.rates)) for candidate in candidates)
    marginal = max(0.0, cost.relative(num_rows + total, num_rows) - 1.0) / total
    for i, candidate in enumerate(candidates):
        if lengths[i] < candidate.trial <= len(candidate.rates):
            price = marginal + max(candidate.prices[: candidate.trial])
            if worth * HOPE > price:
                lengths[i] = candidate.trial
    return lengths


def _limited(candidates: Sequence[Candidate], num_rows: int, cost: StepCost, limit: int) -> list[int]:
    """At most `limit` drafts of each, as far as each token pays for itself in such a step."""
    offered = sum(min(limit, len(candidate.rates)) for candidate in candidates)
    marginal = max(0.0, cost.relative(num_rows + offered, num_rows) - 1.0) / offered
    return [_paying(candidate, 1.0 / num_rows, marginal, limit) for candidate in candidates]


def _promise(candidates: Sequence[Candidate], lengths: Sequence[int], num_rows: int, cost: StepCost) -> float:
    """Tokens per second with these drafts over those without."""
    chosen = [pair for pair in zip(candidates, lengths, strict=True) if pair[1]]
    gain = sum(_gain(candidate, length) for candidate, length in chosen)
    drafting = sum(sum(candidate.prices[:length]) for candidate, length in chosen)
    return (1.0 + gain / num_rows) / (cost.relative(num_rows + sum(lengths), num_rows) + drafting)


def net_gain(candidate: Candidate, num_rows: int, cost: StepCost) -> float:
    """Plain steps saved by one candidate alone, its own time taken off."""
    if not candidate.rates:
        return 0.0
    worth, tokens = 1.0 / num_rows, len(candidate.rates)
    slower = cost.relative(num_rows + tokens, num_rows) - 1.0 + sum(candidate.prices)
    return _gain(candidate, tokens) * worth - slower


def _paying(candidate: Candidate, worth: float, marginal: float, limit: int) -> int:
    """The longest beginning of at most `limit` tokens of which each pays for itself."""
    chance = 1.0
    for count, (rate, price) in enumerate(zip(candidate.rates[:limit], candidate.prices, strict=False)):
        chance *= rate
        if chance * worth <= marginal + price:
            return count
    return min(limit, len(candidate.rates))


def _gain(candidate: Candidate, length: int) -> float:
    """Expected accepted tokens of the first `length`."""
    chance, gain = 1.0, 0.0
    for rate in candidate.rates[:length]:
        chance *= rate
        gain += chance
    return gain
