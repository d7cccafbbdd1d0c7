"""How often the gate is wrong: simulated candidates, judged by its own code, with the default suite's questions.

    python benchmarks/gate_false_alarms.py

An honest candidate changes answers in both directions alike; a worse one also loses a share of one task's answers.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from harness.record import write_result
from rich.console import Console
from rich.table import Table

from foveal.evaluation.checks.tasks import check_tasks
from foveal.evaluation.thresholds import FOUR_BIT, INT8

TASKS, QUESTIONS, ACCURACY = 17, 240, 0.9
CHANGED = {"INT8": (INT8, 0.005), "4-bit": (FOUR_BIT, 0.02)}
LOSSES = (0.0, 0.02, 0.05, 0.1, 0.2)


def result(answers: np.ndarray[Any, Any]) -> SimpleNamespace:
    per_item = [bool(answer) for answer in answers]
    return SimpleNamespace(per_item=per_item, questions=len(per_item), items_digest="", accuracy=float(answers.mean()))


def candidate(rng: np.random.Generator, changed: float, loss: float) -> bool:
    """Whether one simulated candidate passes."""
    before, after = {}, {}
    for task in range(TASKS):
        right = rng.random(QUESTIONS) < ACCURACY
        # Equally many of each kind of change: what is right stays right a little less often, what is wrong the other way.
        flips = np.where(right, changed / 2 / ACCURACY, changed / 2 / (1 - ACCURACY))
        now = right ^ (rng.random(QUESTIONS) < flips)
        if task == 0:
            now &= rng.random(QUESTIONS) >= loss / ACCURACY
        before[f"task {task}"], after[f"task {task}"] = result(right), result(now)
    limits = replace(next(limits for limits, share in CHANGED.values() if share == changed), resamples=1000)
    findings = check_tasks(SimpleNamespace(tasks=after), SimpleNamespace(tasks=before), limits)
    return all(finding.passed for finding in findings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=100)
    count = parser.parse_args().candidates
    passed: dict[str, dict[str, float]] = {}
    for profile, (_, changed) in CHANGED.items():
        rng = np.random.default_rng(0)
        passed[profile] = {
            f"{loss:.0%}": sum(candidate(rng, changed, loss) for _ in range(count)) / count for loss in LOSSES
        }
    table = Table(title=f"Share of {count} candidates that pass; {TASKS} tasks of {QUESTIONS} questions")
    table.add_column("profile, answers changed either way")
    for loss in LOSSES:
        table.add_column(f"one task loses {loss:.0%}", justify="right")
    for profile, shares in passed.items():
        table.add_row(f"{profile}, {CHANGED[profile][1]:.1%}", *(f"{share:.0%}" for share in shares.values()))
    Console(width=140).print(table)
    figures = {"candidates": count, "tasks": TASKS, "questions": QUESTIONS, "accuracy": ACCURACY, "passed": passed}
    print(f"written to {write_result('gate_false_alarms', figures)}")


if __name__ == "__main__":
    main()
