"""Medians, ratios and turns."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.core.errors import ConfigurationError
from foveal.evaluation.peers.environment import Participant
from foveal.evaluation.peers.figures import ImplausibleError, Measurement, best, figures_of, ratio_in_same_rounds
from foveal.evaluation.peers.quality import agreeing_share, compare_logits, summarise_quality
from foveal.evaluation.peers.turns import turns
from foveal.evaluation.peers.workload import Workload, parse_workload

OURS, THEIRS = Participant("foveal", "int4"), Participant("ort", "int4")
WORK = Workload(concurrency=4, prompt_tokens=100, new_tokens=11)


def measured(round_number: int, decode_s: float, *, who: Participant = OURS, gb_per_s: float = 10.0) -> Measurement:
    return Measurement(who, WORK, round_number, first_s=2.0, total_s=2.0 + decode_s, gb_per_s=gb_per_s)


def test_prefill_and_decode_are_told_apart_by_the_run_with_one_new_token() -> None:
    found = measured(0, decode_s=0.5)
    assert found.prefill_tok_s == 4 * 100 / 2.0
    assert found.decode_tok_s == pytest.approx(4 * 10 / 0.5)
    assert found.step_s == pytest.approx(0.05)


def test_a_run_that_took_no_longer_with_all_tokens_than_with_one_is_no_measurement() -> None:
    with pytest.raises(ImplausibleError, match="Something else used the machine"):
        measured(0, decode_s=0.0)


def test_figures_are_medians_and_name_the_extremes() -> None:
    figures = figures_of([measured(k, s) for k, s in enumerate((0.4, 0.5, 4.0))])
    found = (figures.decode_tok_s, figures.decode_lowest, figures.decode_highest)
    assert found == pytest.approx((80.0, 10.0, 100.0))
    assert figures.ttft_ms == 2000.0
    assert figures.roofline is None


def test_the_roofline_counts_weights_once_a_step_and_kv_for_every_sequence() -> None:
    found = [measured(0, decode_s=1.0, gb_per_s=2.0)]
    figures = figures_of(found, weight_bytes=60_000_000, kv_bytes_per_token=100_000)
    step_bytes = 60e6 + 4 * (100 + 5.5) * 100e3
    assert figures.roofline == pytest.approx(step_bytes / 0.1 / 2e9)


def test_a_ratio_compares_only_what_was_measured_in_the_same_round() -> None:
    ours = [measured(0, 1.0), measured(1, 2.0), measured(2, 1.0)]
    theirs = [measured(0, 2.0, who=THEIRS), measured(1, 6.0, who=THEIRS)]
    assert ratio_in_same_rounds(ours, theirs, "decode_tok_s") == pytest.approx(2.5)
    assert ratio_in_same_rounds(ours, [], "decode_tok_s") is None


def test_the_best_has_the_highest_median() -> None:
    slow, fast = figures_of([measured(0, 2.0)]), figures_of([measured(0, 1.0, who=THEIRS)])
    assert best([slow, fast], "decode_tok_s") is fast
    assert best([], "decode_tok_s") is None


@given(st.integers(1, 6), st.integers(1, 8))
def test_everyone_has_one_turn_a_round(participants: int, rounds: int) -> None:
    order = list(turns(range(participants), rounds))
    assert Counter(order) == {(r, p): 1 for r in range(rounds) for p in range(participants)}
    assert [r for r, _ in order] == sorted(r for r, _ in order)


def test_nobody_is_always_first() -> None:
    firsts = [next(p for r, p in turns("abc", 6) if r == number) for number in range(6)]
    assert set(firsts) == set("abc")


@given(st.integers(0, 5))
def test_prompts_are_the_same_for_the_same_seed_and_share_no_prefix_otherwise(seed: int) -> None:
    prompts = WORK.prompts(1000, seed)
    assert prompts == WORK.prompts(1000, seed)
    assert [len(p) for p in prompts] == [100] * 4
    assert all(5 <= token < 1000 for p in prompts for token in p)
    beginnings = {tuple(p[:8]) for s in (seed, seed + 1) for p in WORK.prompts(1000, s)}
    assert len(beginnings) == 8


def test_workloads_are_written_as_concurrency_prompt_and_new_tokens() -> None:
    assert parse_workload("16x128+64") == Workload(16, 128, 64)
    for wrong in ("16", "16x128", "0x128+64", "16x128+1", "ax1+2"):
        with pytest.raises(ConfigurationError, match="is no workload"):
            parse_workload(wrong)


def test_equal_logits_lose_nothing_and_a_constant_is_no_error() -> None:
    logits = np.random.default_rng(0).normal(size=(6, 20)).astype(np.float32)
    ids = [1, 2, 3, 4, 5, 6]
    padded = np.concatenate([logits + 3.0, np.zeros((6, 4), np.float32)], 1)
    quality = summarise_quality([compare_logits(padded, logits, ids)], [])
    assert quality.positions == 5
    assert quality.perplexity_ratio == pytest.approx(1.0)
    assert quality.top1_agreement == 1.0
    assert quality.logit_error == pytest.approx(0.0, abs=1e-6)
    assert quality.kl == pytest.approx(0.0, abs=1e-6)
    assert quality.greedy_agreement is None


def test_perplexity_and_error_follow_their_definitions() -> None:
    reference = np.zeros((3, 4), np.float32)
    reference[:, 0] = 2.0
    logits = np.zeros((3, 4), np.float32)
    quality = summarise_quality([compare_logits(logits, reference, [0, 0, 0])], [0.5, 1.0])
    assert quality.perplexity == pytest.approx(4.0)
    expected = -math.log(math.exp(2) / (math.exp(2) + 3))
    assert quality.perplexity_ratio == pytest.approx(4.0 / math.exp(expected))
    assert quality.logit_error == pytest.approx(1.0)
    assert quality.greedy_agreement == 0.75


def test_an_answer_agrees_up_to_its_first_difference() -> None:
    assert agreeing_share([1, 2, 9, 4], [1, 2, 3, 4]) == 0.5
    assert agreeing_share([1, 2], [1, 2, 3, 4]) == 0.5
    assert agreeing_share([1, 2, 3, 4], [1, 2, 3, 4]) == 1.0
