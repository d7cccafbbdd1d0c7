"""Counters of speculative decoding since the start."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["PROPOSERS", "ProposerCounters", "SpeculationCounters"]

PROPOSERS = ("grammar", "ngram", "draft")
"""Names of all proposers, in the order in which they are asked."""


@dataclass(slots=True)
class ProposerCounters:
    drafted: int = 0
    """Tokens that were verified."""
    accepted: int = 0


@dataclass(slots=True)
class SpeculationCounters:
    rounds: int = 0
    """Verifications: rows of a step with drafts."""
    proposers: dict[str, ProposerCounters] = field(
        default_factory=lambda: {name: ProposerCounters() for name in PROPOSERS}
    )

    @property
    def mean_accepted_length(self) -> float:
        """Tokens a verification yields, the target's own included; 0.0 before the first."""
        if not self.rounds:
            return 0.0
        return 1.0 + sum(counters.accepted for counters in self.proposers.values()) / self.rounds
