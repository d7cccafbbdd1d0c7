"""The document that `foveal bench peers` prints and writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from foveal.evaluation.peers.comparison import ComparisonPlan, Outcome
from foveal.evaluation.peers.figures import Figures, Measurement, best, figures_of, ratio_in_same_rounds
from foveal.evaluation.peers.workload import Workload

__all__ = ["OURS", "report_of"]

OURS = "foveal"


def report_of(
    plan: ComparisonPlan, outcomes: Sequence[Outcome], versions: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """Ready for JSON: settings, one row per engine and mode with medians and ratios, every single measurement."""
    references = {workload: _best_of_ours(outcomes, workload) for workload in plan.workloads}
    return {
        "model": plan.model.name,
        "threads": plan.threads,
        "rounds": plan.rounds,
        "workloads": [str(workload) for workload in plan.workloads],
        "versions": {name: dict(found) for name, found in versions.items()},
        "engines": [_row(outcome, references) for outcome in outcomes],
        "measurements": [m.as_dict() for outcome in outcomes for m in outcome.measurements],
    }


def _row(outcome: Outcome, references: Mapping[Workload, Sequence[Measurement]]) -> dict[str, Any]:
    speed = {}
    for workload, ours in references.items():
        found = _of(outcome, workload)
        if not found:
            continue
        ratios = {
            f"{name}_over_best_of_ours": ratio_in_same_rounds(found, ours, f"{name}_tok_s")
            for name in ("decode", "prefill")
        }
        speed[str(workload)] = {**_figures(outcome, found).as_dict(), **ratios}
    return {
        "engine": str(outcome.participant),
        "loaded": None if outcome.loaded is None else asdict(outcome.loaded),
        "quality": None if outcome.quality is None else outcome.quality.as_dict(),
        "speed": speed,
        "discarded": outcome.discarded,
        "error": outcome.error,
    }


def _best_of_ours(outcomes: Sequence[Outcome], workload: Workload) -> list[Measurement]:
    """Measurements of our mode with the highest median of decode."""
    ours = {o.participant: o for o in outcomes if o.participant.engine == OURS and _of(o, workload)}
    winner = best((_figures(o, _of(o, workload)) for o in ours.values()), "decode_tok_s")
    return [] if winner is None else _of(ours[winner.participant], workload)


def _figures(outcome: Outcome, measurements: Sequence[Measurement]) -> Figures:
    loaded = outcome.loaded
    return figures_of(
        measurements,
        weight_bytes=None if loaded is None else loaded.weight_bytes,
        kv_bytes_per_token=None if loaded is None else loaded.kv_bytes_per_token,
    )


def _of(outcome: Outcome, workload: Workload) -> list[Measurement]:
    return [m for m in outcome.measurements if m.workload == workload]
