"""What a report is about: a base, the candidate that was judged, and others to compare its size and quality with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foveal.artifacts.passport import Passport
from foveal.evaluation.evaluation_result import Evaluation
from foveal.evaluation.metrics.bootstrap import Interval
from foveal.evaluation.verdict import Verdict

__all__ = ["Candidate", "ReportContent", "mean_accuracy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A compressed model with what is known of it."""

    evaluation: Evaluation
    verdict: Verdict | None = None
    passport: Passport | None = None

    @property
    def name(self) -> str:
        return self.evaluation.model.name


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContent:
    """`candidate` is the one the report is about; `others` appear in the plot of size against quality and its table."""

    base: Evaluation
    candidate: Candidate
    others: tuple[Candidate, ...] = ()

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return (self.candidate, *self.others)


def mean_accuracy(evaluation: Evaluation, *, confidence: float = 0.95, resamples: int = 4000) -> Interval | None:
    """Mean over tasks of their accuracy (0..1) with its bootstrap interval; None without tasks."""
    tasks = [task for task in evaluation.tasks.values() if task.questions]
    if not tasks:
        return None
    rng = np.random.default_rng(0)
    drawn = np.mean([rng.binomial(t.questions, t.accuracy, resamples) / t.questions for t in tasks], axis=0)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(float(np.mean([t.accuracy for t in tasks])), float(low), float(high), confidence)
