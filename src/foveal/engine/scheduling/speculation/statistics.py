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

    def as_stats(self) -> dict[str, int]:
        """Under the names that EngineStats gives them."""
        stats = {"spec_rounds": self.rounds}
        for name, counters in self.proposers.items():
            stats[f"spec_drafted_{name}"] = counters.drafted
            stats[f"spec_accepted_{name}"] = counters.accepted
        return stats
