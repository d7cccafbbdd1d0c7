"""The gate rejects what lost too much, each time for the right reason, and accepts what is honest."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from foveal.core.errors import ChangedFileError, TruncatedFileError
from foveal.evaluation.evaluation_result import Agreement, Divergence, Perplexity, Speed, TaskResult
from foveal.evaluation.gate import judge, reject_artefact
from foveal.evaluation.thresholds import FOUR_BIT
from foveal.evaluation.verdict import Finding, Verdict
from unit.evaluation.evaluations import degrade, make_base, make_passport, sight

BASE = make_base()


def test_an_honest_int8_is_accepted_under_int8_limits() -> None:
    passport = make_passport(bits=8)
    verdict = judge(degrade(BASE, flipped=0.01, rise=0.001), BASE, passport)
    assert verdict.profile == "INT8"
    assert verdict.accepted, verdict.reasons
    assert verdict.passport_digest == passport.digest


def test_an_honest_four_bit_model_is_accepted_under_its_own_limits_only() -> None:
    candidate = degrade(BASE, flipped=0.04, rise=0.02)
    assert judge(candidate, BASE, make_passport(bits=4)).accepted
    as_int8 = judge(candidate, BASE, make_passport(bits=8))
    assert _failed(as_int8) == ["perplexity"]


def test_honest_candidates_are_rarely_rejected_by_chance() -> None:
    """No true loss; 5 tasks of 400 questions, 40 seeds: Bonferroni keeps false alarms near the promised 5 %."""
    rejected = sum(
        not judge(degrade(BASE, flipped=0.04, seed=seed), BASE, make_passport()).accepted for seed in range(40)
    )
    assert rejected <= 5


def test_a_garbage_tower_is_rejected_for_its_tasks_and_its_sight() -> None:
    candidate = replace(degrade(BASE, lost=0.5), image_sensitivity=sight(0.1, kl=0.1))
    verdict = judge(candidate, BASE, make_passport())
    assert not verdict.accepted
    assert "task shapes/count" in _failed(verdict)
    assert "image swap" in _failed(verdict)


def test_a_model_that_answers_without_seeing_is_called_blind_even_when_nothing_else_fails() -> None:
    verdict = judge(replace(degrade(BASE), image_sensitivity=sight(0.0, kl=0.0)), BASE, make_passport())
    assert _failed(verdict) == [f"image {p}{k}" for p in ("swap", "blank", "shuffled") for k in ("", " KL")]
    assert "answers without looking: 0 % of the base's sensitivity" in verdict.reasons[0]


def test_without_per_item_probes_blindness_is_proved_all_the_same() -> None:
    blind = sight(0.0)
    blind = replace(blind, swap=replace(blind.swap, changed=()))
    verdict = judge(replace(degrade(BASE), image_sensitivity=blind), BASE, make_passport())
    assert "image swap" in _failed(verdict)


def test_a_slightly_lower_sensitivity_is_noise_with_few_pictures_and_proved_with_many() -> None:
    def outcome(items: int) -> Finding:
        base = replace(BASE, image_sensitivity=sight(0.6, items=items))
        candidate = replace(degrade(BASE), image_sensitivity=sight(0.52, items=items))
        return _finding(judge(candidate, base, make_passport()), "image swap")

    assert outcome(30).passed
    assert outcome(2000).evidence == "proved"
    assert not outcome(2000).passed


def test_a_base_that_never_looked_leaves_nothing_to_keep() -> None:
    base = replace(BASE, image_sensitivity=sight(0.01, kl=0.0))
    candidate = replace(degrade(BASE), image_sensitivity=sight(0.0, kl=0.0))
    assert judge(candidate, base, make_passport()).accepted


def test_zero_layers_quantised_is_rejected() -> None:
    kept = {"lm_head": make_passport().linears["lm_head"]}
    verdict = judge(degrade(BASE), BASE, make_passport(linears=kept))
    assert _failed(verdict) == ["layers"]
    assert "nothing was quantised" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("change", "reason"), [({"kind": "noise"}, "it is noise"), ({"unfit": ("8 samples are too few",)}, "too few")]
)
def test_calibration_on_noise_or_unfit_data_is_rejected(change: dict[str, object], reason: str) -> None:
    passport = make_passport()
    assert passport.calibration is not None
    passport = replace(passport, calibration=replace(passport.calibration, **change))  # type: ignore[arg-type]
    verdict = judge(degrade(BASE), BASE, passport)
    assert _failed(verdict) == ["calibration"]
    assert reason in verdict.reasons[0]


def test_a_broken_artefact_is_rejected_with_what_verification_found() -> None:
    error = ChangedFileError("m.safetensors has SHA-256 ab", "cd", "Copy it again")
    verdict = judge(degrade(BASE), BASE, make_passport(), artefact_error=error)
    assert _failed(verdict) == ["artefact"]
    alone = reject_artefact(TruncatedFileError("m has 3 bytes", "4", "Copy it again"), "sha256:base")
    assert alone.reasons == ("artefact: m has 3 bytes; expected 4. Copy it again",)
    assert not alone.accepted


def test_measurements_of_other_weights_do_not_count() -> None:
    verdict = judge(degrade(BASE, digest="sha256:other"), BASE, make_passport())
    assert _failed(verdict) == ["measured model"]


def test_a_comparison_with_another_base_or_suite_does_not_count() -> None:
    other = replace(BASE, model=replace(BASE.model, digest="sha256:somebody"), suite="quick, seed 3")
    assert _failed(judge(degrade(BASE), other, make_passport())) == ["base", "suite"]


def test_one_bad_task_cannot_hide_behind_good_ones() -> None:
    candidate = degrade(BASE)
    worse = degrade(BASE, lost=0.1)
    candidate = replace(candidate, tasks=candidate.tasks | {"text/word": worse.tasks["text/word"]})
    verdict = judge(candidate, BASE, make_passport())
    assert "task text/word" in _failed(verdict)
    assert _finding(verdict, "task text/word").evidence == "proved"
    assert _finding(verdict, "task easy-vqa").passed


def test_a_small_loss_everywhere_is_found_by_all_tasks_together() -> None:
    """2 points on each of five tasks of 150 questions: no task proves it, their mean does."""
    tasks = {f"t{i}": TaskResult(per_item=(True,) * 130 + (False,) * 20) for i in range(5)}
    lost = {task: TaskResult(per_item=(False,) * 3 + (True,) * 127 + (False,) * 20) for task in tasks}
    base = replace(BASE, tasks=tasks)
    verdict = judge(replace(degrade(BASE), tasks=lost), base, make_passport())
    assert _failed(verdict) == ["all tasks"]
    assert {_finding(verdict, f"task {task}").evidence for task in tasks} == {"within noise"}


@pytest.mark.parametrize(("limit", "accepted"), [(1.5, False), (15.0, True)])
def test_a_task_may_have_its_own_limit(limit: float, accepted: bool) -> None:
    candidate = degrade(BASE)
    worse = degrade(BASE, lost=0.1)
    candidate = replace(candidate, tasks=candidate.tasks | {"text/word": worse.tasks["text/word"]})
    thresholds = replace(FOUR_BIT, points_by_task={"text/word": limit}, task_points=4.0)
    assert judge(candidate, BASE, make_passport(), thresholds=thresholds).accepted is accepted


def test_too_few_questions_decide_nothing_and_the_finding_says_how_many_would() -> None:
    base = make_base(questions=20)
    verdict = judge(degrade(base), base, make_passport())
    finding = _finding(verdict, "task easy-vqa")
    assert finding.evidence == "undecided"
    assert not finding.passed
    assert "20 questions cannot exclude a loss of 10 points; ask about" in finding.reason
    lenient = replace(FOUR_BIT, accept_undecided=True)
    assert _finding(judge(degrade(base), base, make_passport(), thresholds=lenient), "task easy-vqa").passed


@pytest.mark.parametrize(
    ("tasks", "reason"),
    [
        ({}, "the candidate was not asked"),
        ({"easy-vqa": TaskResult(per_item=(True,) * 3)}, "the candidate 3 others"),
        ({"easy-vqa": TaskResult(per_item=(True,) * 400, items_digest="other")}, "others"),
    ],
)
def test_answers_to_other_questions_are_not_compared(tasks: dict[str, TaskResult], reason: str) -> None:
    verdict = judge(replace(degrade(BASE), tasks=tasks), BASE, make_passport())
    assert reason in _finding(verdict, "task easy-vqa").reason
    assert not _finding(verdict, "task easy-vqa").passed


@pytest.mark.parametrize("rise", [0.031, 0.5])
def test_perplexity_over_the_limit_is_rejected(rise: float) -> None:
    verdict = judge(degrade(BASE, rise=rise), BASE, make_passport())
    assert _failed(verdict) == ["perplexity"]
    assert "over the limit" in verdict.reasons[0]


def test_a_perplexity_that_is_not_finite_is_rejected() -> None:
    perplexity = BASE.perplexity
    assert perplexity is not None
    candidate = replace(degrade(BASE), perplexity=Perplexity(value=math.nan, tokens=perplexity.tokens))
    assert _failed(judge(candidate, BASE, make_passport())) == ["perplexity"]


def test_without_windows_the_bare_number_decides() -> None:
    assert BASE.perplexity is not None
    base = replace(BASE, perplexity=Perplexity(value=10.0, tokens=5))
    for value, passed in ((10.29, True), (10.31, False)):
        candidate = replace(degrade(BASE), perplexity=Perplexity(value=value, tokens=5))
        assert judge(candidate, base, make_passport()).accepted is passed


@pytest.mark.parametrize("part", ["perplexity", "captions", "image_sensitivity", "size_bytes"])
def test_what_the_base_was_measured_on_must_be_measured(part: str) -> None:
    candidate = replace(degrade(BASE), **{part: None})  # type: ignore[arg-type]
    assert len(_failed(judge(candidate, BASE, make_passport()))) == 1


def test_a_base_without_sight_measurement_must_say_why() -> None:
    base, candidate = replace(BASE, image_sensitivity=None), replace(degrade(BASE), image_sensitivity=None)
    assert _failed(judge(candidate, base, make_passport())) == ["image sensitivity"]
    told = replace(base, not_measured={"image_sensitivity": "a text model"})
    assert judge(candidate, told, make_passport()).accepted


def test_a_larger_artefact_is_rejected() -> None:
    assert _failed(judge(replace(degrade(BASE), size_bytes=1001), BASE, make_passport())) == ["size"]


def test_optional_limits_judge_when_they_are_asked_for() -> None:
    base = replace(BASE, speed=Speed(encode_ms=10, prefill_tok_s=100, decode_tok_s=10), peak_memory_bytes=100)
    candidate = replace(
        degrade(BASE),
        agreement=Agreement(greedy_exact=0.8, top1=0.9),
        kl=Divergence(mean=0.2, p99=1.0),
        speed=Speed(encode_ms=20, prefill_tok_s=90, decode_tok_s=15),
        peak_memory_bytes=90,
    )
    strict = replace(
        FOUR_BIT,
        greedy_exact=0.85,
        top1=0.85,
        kl_mean=0.1,
        peak_memory_ratio=0.8,
        decode_ratio=1.0,
        prefill_ratio=0.95,
        encode_ratio=0.6,
    )
    failed = _failed(judge(candidate, base, make_passport(), thresholds=strict))
    assert failed == ["greedy agreement", "KL from the base", "peak memory", "prefill speed", "encode speed"]
    unmeasured = _failed(judge(degrade(BASE), BASE, make_passport(), thresholds=strict))
    assert len(unmeasured) == 7


def test_without_a_passport_int8_limits_apply() -> None:
    assert judge(degrade(BASE, rise=0.001), BASE).profile == "INT8"


def test_a_verdict_survives_the_passport() -> None:
    verdict = judge(degrade(BASE, lost=0.2), BASE, make_passport())
    plain = verdict.for_passport()
    assert plain["accepted"] is False
    assert plain["reasons"] == list(verdict.reasons)
    assert Verdict.from_passport(plain) == verdict


def test_a_verdict_without_a_single_check_accepts_nothing() -> None:
    assert not Verdict(findings=(), profile="none").accepted


def _failed(verdict: Verdict) -> list[str]:
    return [finding.check for finding in verdict.findings if not finding.passed]


def _finding(verdict: Verdict, check: str) -> Finding:
    return next(finding for finding in verdict.findings if finding.check == check)
