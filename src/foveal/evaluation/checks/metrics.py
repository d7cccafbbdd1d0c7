"""Perplexity, captions, agreement with the base, and what the model costs to hold and to run."""

from __future__ import annotations

from collections.abc import Iterator

from foveal.evaluation.checks.loss_rule import classify
from foveal.evaluation.evaluation_result import Evaluation, Perplexity
from foveal.evaluation.metrics.bootstrap import Interval, perplexity_ratio_interval
from foveal.evaluation.thresholds import Thresholds
from foveal.evaluation.verdict import Finding

__all__ = ["check_agreement", "check_captions", "check_costs", "check_perplexity"]

NATS = " nats"


def check_perplexity(candidate: Evaluation, base: Evaluation, limits: Thresholds) -> Iterator[Finding]:
    """The rise in percent, with a paired interval over text windows where both have them."""
    limit = f"at most +{limits.perplexity_percent:g} %"
    before, after = base.perplexity, candidate.perplexity
    if before is None or before.value is None:
        yield _failure("perplexity", "base not measured", limit, "the base has no finite perplexity to compare with")
        return
    if after is None:
        yield _failure("perplexity", "not measured", limit, "the candidate was not measured")
        return
    if after.value is None:
        yield _failure("perplexity", "not finite", limit, "the candidate assigns no probability to English text")
        return
    if after.tokens != before.tokens:
        reason = f"the base read {before.tokens:,} tokens, the candidate {after.tokens:,}: other texts"
        yield _failure("perplexity", f"{after.value:.2f}", limit, reason)
        return
    rise = _rise(before, after, limits)
    evidence = classify(rise, limit=limits.perplexity_percent, ceiling=limits.perplexity_ceiling_percent)
    spread = f"{rise.estimate:+.2f} %" + (f" ({rise.low:+.2f} to {rise.high:+.2f} %)" if rise.low < rise.high else "")
    passed = evidence in ("kept", "within noise") or (evidence == "undecided" and limits.accept_undecided)
    notes = {
        "kept": "within the limit",
        "proved": "over the limit, and not by chance",
        "within noise": "no rise over the limit is proved",
        "undecided": f"{before.tokens:,} tokens cannot exclude a rise of {limits.perplexity_ceiling_percent:g} %; read more",
        "exact": "",
    }
    yield Finding(
        check="perplexity",
        found=f"{before.value:.2f} -> {after.value:.2f}",
        limit=limit,
        passed=passed,
        reason=f"{spread}: {notes[evidence]}",
        evidence=evidence,
    )


def _rise(before: Perplexity, after: Perplexity, limits: Thresholds) -> Interval:
    assert before.value is not None
    assert after.value is not None
    percent = 100 * (after.value / before.value - 1)
    if not before.window_nll or before.window_tokens != after.window_tokens:
        return Interval(percent, percent, percent, limits.confidence)
    ratio = perplexity_ratio_interval(
        after.window_nll,
        before.window_nll,
        before.window_tokens,
        confidence=limits.confidence,
        resamples=limits.resamples,
    )
    return Interval(percent, 100 * (ratio.low - 1), 100 * (ratio.high - 1), limits.confidence)


def check_captions(candidate: Evaluation, base: Evaluation, limits: Thresholds) -> Iterator[Finding]:
    """BLEU-4 lost, where the base was measured."""
    if base.captions is None:
        return
    limit = f"at most {limits.bleu4_points:g} points lost"
    after = candidate.captions
    if after is None or after.items != base.captions.items:
        yield _failure("captions BLEU-4", "no pairs", limit, "the candidate was not measured on the same captions")
        return
    lost = base.captions.bleu4 - after.bleu4
    found = f"{base.captions.bleu4:.1f} -> {after.bleu4:.1f} over {after.items} captions"
    reason = f"a loss of {lost:.1f} points"
    yield Finding(check="captions BLEU-4", found=found, limit=limit, passed=lost <= limits.bleu4_points, reason=reason)


def check_agreement(candidate: Evaluation, limits: Thresholds) -> Iterator[Finding]:
    """Agreement and KL, where thresholds ask for them."""
    agreement = candidate.agreement
    if limits.greedy_exact is not None:
        yield _least("greedy agreement", agreement.greedy_exact if agreement else None, limits.greedy_exact)
    if limits.top1 is not None:
        yield _least("top-1 agreement", agreement.top1 if agreement else None, limits.top1)
    if limits.kl_mean is not None:
        yield _most("KL from the base", candidate.kl.mean if candidate.kl else None, limits.kl_mean, unit=NATS)


def check_costs(candidate: Evaluation, base: Evaluation, limits: Thresholds) -> Iterator[Finding]:
    """Size on disk, peak memory and speed against the base, where thresholds ask for them."""
    if limits.size_ratio is not None and base.size_bytes:
        value = None if candidate.size_bytes is None else candidate.size_bytes / base.size_bytes
        yield _most("size", value, limits.size_ratio, unit=" of the base's")
    if limits.peak_memory_ratio is not None:
        value = _ratio(candidate.peak_memory_bytes, base.peak_memory_bytes)
        yield _most("peak memory", value, limits.peak_memory_ratio, unit=" of the base's")
    ours, theirs = candidate.speed, base.speed
    both = ours is not None and theirs is not None
    for check, wanted, name in (
        ("decode speed", limits.decode_ratio, "decode_tok_s"),
        ("prefill speed", limits.prefill_ratio, "prefill_tok_s"),
        ("encode speed", limits.encode_ratio, "encode_ms"),
    ):
        if wanted is not None:
            pair = (getattr(ours, name), getattr(theirs, name)) if both else (None, None)
            value = _ratio(*(reversed(pair) if name.endswith("_ms") else pair))
            yield _least(check, value, wanted, unit=" of the base's")


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or not theirs else ours / theirs


def _least(check: str, value: float | None, wanted: float, unit: str = "") -> Finding:
    return _limit(check, value, wanted, unit, "at least", value is not None and value >= wanted)


def _most(check: str, value: float | None, wanted: float, unit: str = "") -> Finding:
    return _limit(check, value, wanted, unit, "at most", value is not None and value <= wanted)


def _limit(check: str, value: float | None, wanted: float, unit: str, word: str, passed: bool) -> Finding:
    """Shares are shown in percent; `unit` " nats" as it is."""
    limit = f"{word} {wanted:g}{unit}" if unit == NATS else f"{word} {100 * wanted:g} %{unit}"
    if value is None:
        return _failure(check, "not measured", limit, "a threshold asks for it, and it was not measured")
    found = f"{value:.4f}{unit}" if unit == NATS else f"{100 * value:.1f} %{unit}"
    reason = "within the limit" if passed else "over the limit" if word == "at most" else "below the limit"
    return Finding(check=check, found=found, limit=limit, passed=passed, reason=reason)


def _failure(check: str, found: str, limit: str, reason: str) -> Finding:
    return Finding(check=check, found=found, limit=limit, passed=False, reason=reason)
