"""Is the candidate what its passport says, made in earnest, and measured against the right base?"""

from __future__ import annotations

from collections.abc import Iterator

from foveal.artifacts.passport import Passport
from foveal.core.errors import ArtifactError
from foveal.evaluation.evaluation_result import Evaluation
from foveal.evaluation.verdict import Finding

__all__ = ["check_artefact"]

_NOISE = ("noise", "random")


def check_artefact(
    candidate: Evaluation, base: Evaluation, passport: Passport | None, error: ArtifactError | None
) -> Iterator[Finding]:
    """Findings about the directory, the layers, the calibration, and who was measured against whom."""
    if error is not None:
        yield _finding("artefact", error.found, error.expected or "a sound artefact", False, str(error))
    if passport is not None:
        if error is None:
            yield _finding("artefact", "every file as listed", "as listed", True, "the passport's digests hold")
        yield from _check_passport(candidate, base, passport)
    if candidate.suite != base.suite:
        reason = "measured on different items: no difference between them means anything. Evaluate both with one suite"
        yield _finding("suite", candidate.suite, base.suite, False, reason)


def _check_passport(candidate: Evaluation, base: Evaluation, passport: Passport) -> Iterator[Finding]:
    if candidate.model.digest != passport.model_digest:
        reason = "the evaluation is of other weights than the passport describes. Evaluate this directory"
        yield _finding("measured model", candidate.model.digest, passport.model_digest, False, reason)
    if base.model.digest != passport.source.digest:
        reason = f"the candidate was made from {passport.source.name}, and compared with something else"
        yield _finding("base", base.model.digest, passport.source.digest, False, reason)
    if passport.kind == "quantised":
        quantised, total = passport.quantised_linears, len(passport.linears)
        passed = quantised > 0
        reason = f"{total - quantised} are kept, each for a recorded reason"
        if not passed:
            reason = "nothing was quantised: the recipe's targets fit no module of this model"
        yield _finding("layers", f"{quantised} of {total} quantised", "at least 1", passed, reason)
    calibration = passport.calibration
    if calibration is not None:
        unfit = list(calibration.unfit)
        if any(word in calibration.kind.lower() for word in _NOISE):
            unfit.append("it is noise")
        reason = f"unfit for calibration: {'; '.join(unfit)}" if unfit else "real pictures with questions"
        found = f"{calibration.samples} samples of {calibration.kind}"
        yield _finding("calibration", found, "pictures as in service", not unfit, reason)


def _finding(check: str, found: str, limit: str, passed: bool, reason: str) -> Finding:
    return Finding(check=check, found=found, limit=limit, passed=passed, reason=reason)
