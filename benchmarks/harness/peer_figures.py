"""Questions to results/peers.json: who is fastest, and by how much, round by round."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from typing import Any

from harness.record import RESULTS

__all__ = ["Duel", "PeerReport", "read_reports"]

OURS = "foveal"


@dataclass(frozen=True)
class Duel:
    """Our engine over another, median of the ratios of the same rounds."""

    ours: str
    theirs: str
    ratio: float
    ours_tok_s: float
    theirs_tok_s: float
    quality: str
    """"not worse", "worse" or "unknown", with both figures."""

    def __str__(self) -> str:
        return (
            f"{self.ours} {self.ours_tok_s:.0f} tok/s, {self.theirs} {self.theirs_tok_s:.0f} tok/s: "
            f"{self.ratio:.2f}x, quality {self.quality}"
        )


class PeerReport:
    """One model's part of the file."""

    def __init__(self, report: dict[str, Any]) -> None:
        self.model: str = report["model"]
        self.workloads: list[str] = report["workloads"]
        self.rounds: int = report["rounds"]
        self._rows = {row["engine"]: row for row in report["engines"]}
        self._measurements = report["measurements"]

    @property
    def failures(self) -> dict[str, str]:
        return {name: row["error"] for name, row in self._rows.items() if row["error"]}

    def workload(self, concurrency: int) -> str | None:
        return next((w for w in self.workloads if w.startswith(f"{concurrency} x ")), None)

    def roofline(self, engine: str, workload: str) -> float | None:
        return self._rows[engine]["speed"].get(workload, {}).get("roofline")

    def engines(self, workload: str, *, ours: bool, bits: int | None = None) -> list[str]:
        return [
            name
            for name, row in self._rows.items()
            if workload in row["speed"]
            and (name.partition(":")[0] == OURS) == ours
            and (bits is None or row["loaded"]["weight_bits"] == bits)
        ]

    def duel(self, workload: str, figure: str, ours: str, theirs: str) -> Duel:
        """`figure` is decode_tok_s or prefill_tok_s."""
        rounds = [self._by_round(name, workload, figure) for name in (ours, theirs)]
        common = rounds[0].keys() & rounds[1].keys()
        ratio = statistics.median(rounds[0][number] / rounds[1][number] for number in common)
        rates = [self._rows[name]["speed"][workload][figure] for name in (ours, theirs)]
        return Duel(ours, theirs, ratio, *rates, self._quality(ours, theirs))

    def duel_of_the_best(self, workload: str, figure: str, *, bits: int | None = None) -> Duel | None:
        """Their fastest against our fastest that answers no worse, or our fastest; None where one side has nobody."""
        ours, others = (self.engines(workload, ours=side, bits=bits) for side in (True, False))
        if not (ours and others):
            return None
        rival = self._fastest(others, workload, figure)
        good = [name for name in ours if not self._quality(name, rival).startswith("worse")]
        return self.duel(workload, figure, self._fastest(good or ours, workload, figure), rival)

    def duels_at_equal_bits(self, workload: str, figure: str, bits: int) -> list[Duel]:
        """Every other with so many bits against our fastest with as many that answers no worse."""
        ours = self.engines(workload, ours=True, bits=bits)
        if not ours:
            return []
        duels = []
        for other in self.engines(workload, ours=False, bits=bits):
            good = [name for name in ours if not self._quality(name, other).startswith("worse")]
            duels.append(self.duel(workload, figure, self._fastest(good or ours, workload, figure), other))
        return duels

    def _fastest(self, names: list[str], workload: str, figure: str) -> str:
        return max(names, key=lambda name: float(self._rows[name]["speed"][workload][figure]))

    def _by_round(self, engine: str, workload: str, figure: str) -> dict[int, float]:
        return {
            m["round"]: m[figure]
            for m in self._measurements
            if m["participant"] == engine and m["workload"] == workload
        }

    def _quality(self, ours: str, theirs: str) -> str:
        """By perplexity where the weights mean something, else by the logits' error."""
        measure = "logit_error" if self.model.startswith("random") else "perplexity_ratio"
        values = [(self._rows[name]["quality"] or {}).get(measure) for name in (ours, theirs)]
        if None in values:
            return f"unknown ({measure} {values[0]} and {values[1]})"
        verdict = "not worse" if values[0] <= values[1] else "worse"
        return f"{verdict} ({measure} {values[0]:.4f} against {values[1]:.4f})"


def read_reports() -> dict[str, PeerReport]:
    """By model. Raises FileNotFoundError where `peers_table.py` has not run."""
    figures = json.loads((RESULTS / "peers.json").read_text())["figures"]
    return {report["model"]: PeerReport(report) for report in figures["models"]}
