"""From single measurements to medians and ratios."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from foveal.core.errors import FovealError
from foveal.evaluation.peers.environment import Participant
from foveal.evaluation.peers.workload import Workload

__all__ = ["Figures", "ImplausibleError", "Measurement", "best", "figures_of", "ratio_in_same_rounds"]


class ImplausibleError(FovealError):
    """A measurement that cannot be: the machine was disturbed."""


@dataclass(frozen=True)
class Measurement:
    """One engine, one workload, one round: the prompts with one new token, then with all.

    Raises ImplausibleError where all tokens took no longer than the first.
    """

    participant: Participant
    workload: Workload
    round: int
    first_s: float
    """Until every prompt has its first token."""
    total_s: float
    gb_per_s: float
    """Read bandwidth of the memory just before."""

    def __post_init__(self) -> None:
        if self.total_s <= self.first_s:
            raise ImplausibleError(
                f"{self.participant}, {self.workload}: {self.workload.new_tokens} tokens took {self.total_s:.3f} s, the first "
                f"alone {self.first_s:.3f} s. Something else used the machine: stop it, or ask for more new tokens."
            )

    @property
    def prefill_tok_s(self) -> float:
        return self.workload.concurrency * self.workload.prompt_tokens / self.first_s

    @property
    def decode_tok_s(self) -> float:
        """Tokens after the first, over the time that they added."""
        return self.workload.concurrency / self.step_s

    @property
    def step_s(self) -> float:
        return (self.total_s - self.first_s) / (self.workload.new_tokens - 1)

    def as_dict(self) -> dict[str, Any]:
        derived = {"prefill_tok_s": self.prefill_tok_s, "decode_tok_s": self.decode_tok_s}
        return {**asdict(self), "participant": str(self.participant), "workload": str(self.workload), **derived}


@dataclass(frozen=True)
class Figures:
    """Medians over the rounds."""

    participant: Participant
    workload: Workload
    rounds: int
    decode_tok_s: float
    decode_lowest: float
    decode_highest: float
    prefill_tok_s: float
    ttft_ms: float
    """All prompts sent at once, until the last has its first token."""
    gb_per_s: float
    roofline: float | None
    """Share of the read bandwidth that a decode step uses for weights and KV, where the engine says how many bytes."""

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "participant": str(self.participant), "workload": str(self.workload)}


def figures_of(
    measurements: Sequence[Measurement], *, weight_bytes: int | None = None, kv_bytes_per_token: int | None = None
) -> Figures:
    """`measurements` of one participant and workload, not empty. Bytes are those a step reads of the weights, and those
    of one token of one sequence in the KV cache."""
    first = measurements[0]
    rates = [m.decode_tok_s for m in measurements]
    return Figures(
        participant=first.participant,
        workload=first.workload,
        rounds=len(measurements),
        decode_tok_s=statistics.median(rates),
        decode_lowest=min(rates),
        decode_highest=max(rates),
        prefill_tok_s=statistics.median(m.prefill_tok_s for m in measurements),
        ttft_ms=1e3 * statistics.median(m.first_s for m in measurements),
        gb_per_s=statistics.median(m.gb_per_s for m in measurements),
        roofline=_roofline(measurements, weight_bytes, kv_bytes_per_token),
    )


def _roofline(measurements: Sequence[Measurement], weight_bytes: int | None, kv_bytes: int | None) -> float | None:
    if weight_bytes is None or kv_bytes is None:
        return None
    workload = measurements[0].workload
    # The context grows by one a step: half of the new tokens on average.
    context = workload.prompt_tokens + workload.new_tokens / 2
    step_bytes = weight_bytes + workload.concurrency * context * kv_bytes
    return statistics.median(step_bytes / m.step_s / 1e9 / m.gb_per_s for m in measurements)


def ratio_in_same_rounds(ours: Iterable[Measurement], theirs: Iterable[Measurement], figure: str) -> float | None:
    """Median over rounds of our `figure` ("decode_tok_s" or "prefill_tok_s") over theirs; None without a common round."""
    other = {m.round: getattr(m, figure) for m in theirs}
    ratios = [getattr(m, figure) / other[m.round] for m in ours if m.round in other]
    return statistics.median(ratios) if ratios else None


def best(figures: Iterable[Figures], figure: str) -> Figures | None:
    """The one with the highest median of `figure`."""
    return max(figures, key=lambda found: float(getattr(found, figure)), default=None)
