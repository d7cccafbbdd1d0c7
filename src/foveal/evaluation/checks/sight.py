"""Does the candidate still look at the picture?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np

from foveal.evaluation.evaluation_result import Evaluation, PictureDependence
from foveal.evaluation.metrics.bootstrap import Interval
from foveal.evaluation.thresholds import Thresholds
from foveal.evaluation.verdict import Evidence, Finding

__all__ = ["check_sight"]

_PROBES = {"swap": "swapped", "blank": "blanked", "shuffled": "shuffled"}
LOOKS = 0.05
"""Below this share of changed answers the base itself hardly looks, and there is nothing to keep."""
BLIND = 0.2
"""Below this share of the base's sensitivity a model is called blind rather than short-sighted."""


def check_sight(candidate: Evaluation, base: Evaluation, limits: Thresholds) -> Iterator[Finding]:
    """For each probe: share of the base's sensitivity that is left, by changed answers and by KL."""
    before, after = base.image_sensitivity, candidate.image_sensitivity
    if before is None:
        if base.not_measured.get("image_sensitivity"):
            reason = f"the base was not measured: {base.not_measured['image_sensitivity']}"
            yield Finding(check="image sensitivity", found="-", limit="-", passed=True, reason=reason)
        else:
            yield _failure("the base was not measured: whether the model still sees is unknown", limits)
        return
    if after is None or after.items != before.items:
        yield _failure("the candidate was not measured on the same items: whether it still sees is unknown", limits)
        return
    for probe in _PROBES:
        yield _changed_answers(probe, getattr(before, probe), getattr(after, probe), before.items, limits)
        if limits.image_kl_kept is not None:
            yield from _divergence(probe, getattr(before, probe), getattr(after, probe), limits.image_kl_kept)


def _changed_answers(
    probe: str, before: PictureDependence, after: PictureDependence, items: int, limits: Thresholds
) -> Finding:
    word, wanted = _PROBES[probe], limits.image_sensitivity_kept
    found = f"{100 * before.answers:.0f} % -> {100 * after.answers:.0f} % of {items} answers change"
    evidence: Evidence = "exact"
    if before.answers < LOOKS:
        passed, reason = True, f"the base itself changes hardly any answer when the picture is {word}"
    else:
        kept = _kept(before, after, items, limits)
        # The loss of sensitivity is 1 - kept; a true loss of half the sight must be excluded.
        if kept.low >= wanted:
            evidence = "kept"
        elif kept.estimate < wanted and kept.high < 1:
            evidence = "proved"
        else:
            evidence = "undecided" if kept.low < min(0.5, wanted) else "within noise"
        passed = evidence in ("kept", "within noise") or (evidence == "undecided" and limits.accept_undecided)
        reach = f"{100 * kept.low:.0f} to {100 * kept.high:.0f} %"
        share = f"{100 * kept.estimate:.0f} % of the base's sensitivity is left ({reach})"
        if evidence == "proved" and kept.estimate < BLIND:
            reason = f"the model answers without looking: {share} when the picture is {word}"
        elif evidence == "undecided":
            reason = f"{share}: {items} items cannot exclude that half of it is gone; probe with more pictures"
        else:
            reason = share
    return Finding(
        check=f"image {probe}", found=found, limit=_allowed(wanted), passed=passed, reason=reason, evidence=evidence
    )


def _divergence(probe: str, before: PictureDependence, after: PictureDependence, wanted: float) -> Iterator[Finding]:
    check, limit = f"image {probe} KL", f"at least {100 * wanted:.0f} % of the base's"
    if before.kl is None or before.kl <= 0:
        return
    if after.kl is None:
        reason = "the candidate's output is not finite"
        yield Finding(check=check, found="not finite", limit=limit, passed=False, reason=reason)
        return
    kept = after.kl / before.kl
    reason = f"{100 * kept:.0f} % of the effect that a {_PROBES[probe]} picture has on the base"
    found = f"{before.kl:.3f} -> {after.kl:.3f} nats"
    yield Finding(check=check, found=found, limit=limit, passed=kept >= wanted, reason=reason)


def _kept(before: PictureDependence, after: PictureDependence, items: int, limits: Thresholds) -> Interval:
    """Interval of after / before: paired bootstrap with per-item results, else by the delta method, unpaired (wider)."""
    ratio = after.answers / before.answers
    if before.changed and len(before.changed) == len(after.changed):
        pairs = Counter(zip(after.changed, before.changed, strict=True))
        kinds = list(pairs)
        counts = np.random.default_rng(0).multinomial(
            len(before.changed), [pairs[kind] / len(before.changed) for kind in kinds], size=limits.resamples
        )
        ours, theirs = (counts @ np.array([float(kind[side]) for kind in kinds]) for side in (0, 1))
        drawn = ours / np.maximum(theirs, 0.5)
        tail = (1 - limits.confidence) / 2
        low, high = np.quantile(drawn, [tail, 1 - tail])
        return Interval(ratio, float(low), float(high), limits.confidence)
    # Laplace's half item keeps the variance from vanishing at shares of 0 and 1.
    p, q = ((share * items + 0.5) / (items + 1) for share in (after.answers, before.answers))
    error = math.sqrt(p * (1 - p) + ratio**2 * q * (1 - q)) / math.sqrt(items) / before.answers
    reach = NormalDist().inv_cdf((1 + limits.confidence) / 2) * error
    return Interval(ratio, ratio - reach, ratio + reach, limits.confidence)


def _allowed(wanted: float) -> str:
    return f"at least {100 * wanted:.0f} % of the base's"


def _failure(reason: str, limits: Thresholds) -> Finding:
    limit = _allowed(limits.image_sensitivity_kept)
    return Finding(check="image sensitivity", found="not measured", limit=limit, passed=False, reason=reason)
