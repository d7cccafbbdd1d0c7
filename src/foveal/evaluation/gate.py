"""The quality gate: is a compressed model still good enough to ship, and why (not)?

Every check ends in a Finding, also those that pass: a verdict shows what was looked at. What the base was measured on and
the candidate was not fails. How losses are told from noise: `loss_rule`. Limits: `thresholds`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from foveal.artifacts.passport import Passport
from foveal.core.errors import ArtifactError
from foveal.evaluation.checks.artefact import check_artefact
from foveal.evaluation.checks.metrics import check_agreement, check_captions, check_costs, check_perplexity
from foveal.evaluation.checks.sight import check_sight
from foveal.evaluation.checks.tasks import check_tasks
from foveal.evaluation.evaluation_result import Evaluation
from foveal.evaluation.thresholds import PROFILES, Profile, Thresholds, thresholds_for
from foveal.evaluation.verdict import Finding, Verdict

__all__ = ["judge", "reject_artefact"]


def judge(
    candidate: Evaluation,
    base: Evaluation,
    passport: Passport | None = None,
    *,
    thresholds: Mapping[Profile, Thresholds] | Thresholds | None = None,
    artefact_error: ArtifactError | None = None,
) -> Verdict:
    """Compare `candidate` with `base`, both measured on the same suite.

    `passport` must have been verified (artifacts' `verify`); pass what that raised as `artefact_error` where the
    candidate was measured all the same. Without a passport nothing is known of the layers: INT8's limits apply.
    """
    bits = passport.narrowest_bits if passport is not None else None
    if isinstance(thresholds, Thresholds):
        profile, limits = "given", thresholds
    else:
        profile, limits = thresholds_for(bits, thresholds or PROFILES)

    def findings() -> Iterator[Finding]:
        yield from check_artefact(candidate, base, passport, artefact_error)
        yield from check_perplexity(candidate, base, limits)
        yield from check_tasks(candidate, base, limits)
        yield from check_sight(candidate, base, limits)
        yield from check_captions(candidate, base, limits)
        yield from check_agreement(candidate, limits)
        yield from check_costs(candidate, base, limits)

    return Verdict(
        findings=tuple(findings()),
        profile=profile,
        passport_digest=passport.digest if passport is not None else "",
        base_digest=base.model.digest,
    )


def reject_artefact(error: ArtifactError, base_digest: str = "") -> Verdict:
    """The verdict on a directory that is not what its passport says: nothing was measured."""
    finding = Finding(
        check="artefact", found=error.found, limit=error.expected or "a sound artefact", passed=False, reason=str(error)
    )
    return Verdict(findings=(finding,), profile="none", base_digest=base_digest)
