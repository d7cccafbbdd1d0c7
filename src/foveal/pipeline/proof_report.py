"""From a proof, and from artefacts that were proved before, to the content of an HTML report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from foveal.artifacts.passport import Passport
from foveal.artifacts.passport_file import read_passport
from foveal.core.errors import ConfigurationError
from foveal.evaluation.evaluation_result import Evaluation, MeasuredModel
from foveal.evaluation.report.content import Candidate, ReportContent
from foveal.evaluation.verdict import Verdict
from foveal.pipeline.prove import Proof

__all__ = ["proved_before", "report_content"]


def report_content(proof: Proof, candidate: Path, base: Path, others: Sequence[Candidate] = ()) -> ReportContent:
    """What was not measured, because the candidate was refused at once, is named as such. `others`: see `proved_before`."""
    return ReportContent(
        base=proof.base or _unmeasured(base, proof.verdict.base_digest),
        candidate=Candidate(
            evaluation=proof.candidate or _unmeasured(candidate, ""), verdict=proof.verdict, passport=proof.passport
        ),
        others=tuple(others),
    )


def proved_before(directory: Path) -> Candidate:
    """An artefact with the evaluation and the verdict in its passport.

    Raises ConfigurationError for one that was not proved, or whose record cannot be read, and ArtifactError.
    """
    passport = read_passport(directory)
    if passport.evaluation is None:
        raise ConfigurationError(f"{directory} was not measured. Run `foveal prove {directory} --against BASE` first.")
    return Candidate(evaluation=_evaluation(directory, passport), verdict=_verdict(passport), passport=passport)


def _evaluation(directory: Path, passport: Passport) -> Evaluation:
    return Evaluation.from_json(msgspec.json.encode(passport.evaluation), origin=f"the passport of {directory}")


def _verdict(passport: Passport) -> Verdict | None:
    return None if passport.verdict is None else Verdict.from_passport(passport.verdict)


def _unmeasured(directory: Path, digest: str) -> Evaluation:
    model = MeasuredModel(name=directory.resolve().name, digest=digest)
    return Evaluation(model=model, suite="none", not_measured={"everything": "the candidate was refused before"})
