"""Speculative decoding gives the tokens of plain decoding: greedy, sampled, guided, with images, under every disturbance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from foveal.core.sampling_params import GuidedDecoding, SamplingParams
from foveal.engine.execution.guided import GuideFactory
from foveal.engine.scheduling.request import FinishReason
from support.engine_driver import EngineDriver, greedy
from support.scripted_proposer import speculate_from_script
from support.tiny_checkpoints import tiny_hf_model
from support.tiny_models import (
    FAMILIES,
    NUM_NEW_TOKENS,
    TEXT_FAMILIES,
    TinyCase,
    tiny_cases,
    tiny_model,
    tiny_processor,
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def script_of(cases: Sequence[TinyCase]) -> dict[tuple[int, ...], tuple[int, ...]]:
    return {tuple(case.prompt.token_ids): case.expected for case in cases}


def serve(driver: EngineDriver, cases: Sequence[TinyCase], *, preempt: bool = False) -> list[tuple[int, ...]]:
    """Requests arrive one every other step; with `preempt` somebody is sent back every fifth."""
    names = [driver.add(cases[0].prompt, greedy(NUM_NEW_TOKENS))]
    step = 0
    while driver.loop.has_work or len(names) < len(cases):
        step += 1
        if step % 2 == 0 and len(names) < len(cases):
            names.append(driver.add(cases[len(names)].prompt, greedy(NUM_NEW_TOKENS)))
        if preempt and step < 60 and step % 5 == 4:
            driver.loop.scheduler.preempt(names[step // 5 % len(names)])
        driver.step()
    driver.run()
    return [tuple(driver.tokens[name, 0]) for name in names]


@pytest.mark.parametrize("budget", [11, 64])
@pytest.mark.parametrize("family", FAMILIES)
def test_verified_drafts_are_token_exact_cold_and_after_a_prefix_hit(family: str, budget: int) -> None:
    cases = tiny_cases(family)
    driver = EngineDriver(tiny_model(family), max_num_batched_tokens=budget)
    speculator = speculate_from_script(driver, script_of(cases))
    for _ in ("cold", "hit"):
        assert serve(driver, cases) == [case.expected for case in cases]
    counters = speculator.counters.proposers["ngram"]
    assert 0 < counters.accepted < counters.drafted
    assert driver.loop.stats().prefix_cache_hits > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_verified_drafts_are_token_exact_under_forced_preemption(family: str) -> None:
    cases = tiny_cases(family)
    driver = EngineDriver(tiny_model(family))
    speculator = speculate_from_script(driver, script_of(cases))
    assert serve(driver, cases, preempt=True) == [case.expected for case in cases]
    assert speculator.counters.rounds > 0
    assert driver.loop.stats().num_preemptions > 0


@pytest.mark.parametrize("speculate", ["ngram", "auto", "draft:tiny", "auto,draft:tiny"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_proposer_is_token_exact_on_every_family(family: str, speculate: str) -> None:
    cases = tiny_cases(family)
    draft = tiny_model("llama") if "draft" in speculate else None
    driver = EngineDriver(
        tiny_model(family), draft=draft, speculate=speculate, speculate_adaptive=False, draft_vocabulary=200
    )
    assert serve(driver, cases, preempt=True) == [case.expected for case in cases]
    if draft is not None:
        assert driver.loop.stats().spec_drafted_draft > 0


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_a_draft_that_is_the_target_is_always_right(family: str) -> None:
    """Its cache, its positions and what it reads are the target's own, or some token would differ."""
    cases = tiny_cases(family)
    driver = EngineDriver(
        tiny_model(family),
        draft=tiny_model(family),
        speculate="draft:itself",
        speculate_adaptive=False,
        draft_vocabulary=None,
    )
    assert serve(driver, cases) == [case.expected for case in cases]
    stats = driver.loop.stats()
    assert stats.spec_drafted_draft == stats.spec_accepted_draft > 0


SAMPLING: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.8, "top_p": 0.9},
    {"temperature": 1.2, "top_k": 20, "min_p": 0.02},
    {"temperature": 0.0, "repetition_penalty": 1.4},
    {"temperature": 1.0, "repetition_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": 0.3},
    {"temperature": 1.0, "min_tokens": 8, "logprobs": 2, "ignore_eos": False},
]


@pytest.mark.parametrize("sampling", SAMPLING, ids=str)
@pytest.mark.parametrize("family", ["llama", "llava"])
def test_seeded_sampling_gives_the_same_tokens_with_and_without_drafts(family: str, sampling: dict[str, Any]) -> None:
    case = tiny_cases(family)[0]
    params = SamplingParams(**{"max_tokens": 24, "ignore_eos": True} | sampling)
    plain = EngineDriver(tiny_model(family))
    name = plain.add(case.prompt, params, seed=11)
    plain.run()
    expected = plain.tokens[name, 0]
    driver = EngineDriver(tiny_model(family))
    speculator = speculate_from_script(driver, {tuple(case.prompt.token_ids): expected})
    again = driver.add(case.prompt, params, seed=11)
    driver.run()
    assert driver.tokens[again, 0] == expected
    assert 0 < speculator.counters.proposers["ngram"].accepted < speculator.counters.proposers["ngram"].drafted


def test_a_draft_model_that_is_the_target_is_always_right_when_sampling() -> None:
    """It draws with the target's random numbers, through the same penalties and filters."""
    model, case = tiny_model("llama"), tiny_cases("llama")[0]
    driver = EngineDriver(
        model, draft=tiny_model("llama"), speculate="draft:itself", speculate_adaptive=False, draft_vocabulary=None
    )
    params = SamplingParams(max_tokens=24, temperature=1.1, top_p=0.95, repetition_penalty=1.3, ignore_eos=True)
    driver.add(case.prompt, params, seed=4)
    driver.run()
    stats = driver.loop.stats()
    assert stats.spec_drafted_draft == stats.spec_accepted_draft > 0


def test_choices_of_one_request_are_verified_each_for_itself() -> None:
    case = tiny_cases("llava")[0]
    params = SamplingParams(n=3, temperature=1.0, max_tokens=16, ignore_eos=True)
    plain = EngineDriver(tiny_model("llava"))
    name = plain.add(case.prompt, params, seed=5)
    plain.run()
    driver = EngineDriver(tiny_model("llava"), max_num_batched_tokens=64)
    # The drafts are the second choice's answer: right for that one, wrong for the others.
    speculator = speculate_from_script(
        driver, {tuple(case.prompt.token_ids): plain.tokens[name, 1]}, wrong_every=10_000
    )
    again = driver.add(case.prompt, params, seed=5)
    driver.run()
    for k in range(3):
        assert driver.tokens[again, k] == plain.tokens[name, k]
    assert speculator.counters.proposers["ngram"].accepted >= 12


def test_logprobs_come_with_every_accepted_token_and_are_those_of_plain_decoding() -> None:
    case = tiny_cases("llama")[0]
    params = greedy(NUM_NEW_TOKENS, logprobs=2)
    plain, driver = EngineDriver(tiny_model("llama")), EngineDriver(tiny_model("llama"))
    speculate_from_script(driver, script_of([case]))
    described: list[list[Any]] = []
    for one in (plain, driver):
        one.add(case.prompt, params)
        one.run()
        described.append([entry for event in one.events for entry in event.logprobs])
        assert all(len(event.logprobs) == len(event.token_ids) for event in one.events)
    assert len(driver.events) < len(plain.events)
    assert [entry.token_id for entry in described[1]] == [entry.token_id for entry in described[0]]
    for left, right in zip(*described, strict=True):
        assert right.logprob == pytest.approx(left.logprob, abs=1e-4)
        assert right.rank == left.rank


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 7])
def test_max_tokens_is_exact_however_many_drafts_would_be_right(max_tokens: int) -> None:
    case = tiny_cases("llama")[0]
    driver = EngineDriver(tiny_model("llama"))
    speculate_from_script(driver, script_of([case]), wrong_every=10_000, most_tokens=8)
    name = driver.add(case.prompt, greedy(max_tokens))
    driver.run()
    assert tuple(driver.tokens[name, 0]) == case.expected[:max_tokens]
    assert driver.finish[name, 0] is FinishReason.LENGTH


def test_a_stop_token_among_accepted_drafts_ends_the_answer_there() -> None:
    case = tiny_cases("llama")[0]
    stop = case.expected[6]
    first = case.expected.index(stop)
    driver = EngineDriver(tiny_model("llama"))
    speculate_from_script(driver, script_of([case]), wrong_every=10_000, most_tokens=8)
    name = driver.add(case.prompt, greedy(NUM_NEW_TOKENS, stop_token_ids=(stop,), logprobs=0))
    driver.run()
    assert tuple(driver.tokens[name, 0]) == case.expected[: first + 1]
    assert driver.finish[name, 0] is FinishReason.STOP
    assert sum(len(event.logprobs) for event in driver.events) == first + 1


@pytest.mark.parametrize("steps", [3, 4, 5, 6, 7])
def test_aborting_amid_verification_leaves_nothing_behind(steps: int) -> None:
    case = tiny_cases("llama")[0]
    driver = EngineDriver(
        tiny_model("llama"), draft=tiny_model("llama"), speculate="auto,draft:itself", speculate_adaptive=False
    )
    name = driver.add(case.prompt, greedy(NUM_NEW_TOKENS, n=2))
    for _ in range(steps):
        driver.step()
    driver.loop.abort(name)
    driver.run()
    assert driver.loop.stats().kv_blocks_used == 0


def test_a_small_pool_drafts_less_and_preempts_no_more_than_plain_decoding() -> None:
    cases = tiny_cases("llama")
    longest = max(len(case.prompt.token_ids) for case in cases) + NUM_NEW_TOKENS
    preemptions = []
    for speculates in (False, True):
        driver = EngineDriver(tiny_model("llama"), num_kv_blocks=-(-longest // 4) + 2, enable_prefix_caching=False)
        if speculates:
            speculate_from_script(driver, script_of(cases), most_tokens=8)
        assert driver.answers([case.prompt for case in cases], greedy(NUM_NEW_TOKENS)) == [
            list(case.expected) for case in cases
        ]
        preemptions.append(driver.loop.stats().num_preemptions)
    assert preemptions[1] <= preemptions[0]


SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}, "number_of_shapes": {"type": "integer", "maximum": 9}},
    "required": ["colour", "number_of_shapes"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("speculate", ["grammar", "ngram", "auto,draft:itself"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_guided_answers_are_the_same_and_forced_text_comes_in_one_step(speculate: str, temperature: float) -> None:
    model = tiny_model("llama")
    factory = GuideFactory(tiny_processor("llama").tokenizer, model.spec.eos_token_ids or (2,))
    params = SamplingParams(
        temperature=temperature, max_tokens=80, guided=GuidedDecoding(json_schema=SCHEMA), logprobs=0
    )
    case = tiny_cases("llama")[0]
    plain = EngineDriver(model, guide_factory=factory)
    name = plain.add(case.prompt, params, seed=8)
    plain.run()
    driver = EngineDriver(
        model,
        guide_factory=factory,
        draft=tiny_model("llama") if "draft" in speculate else None,
        speculate=speculate,
        speculate_adaptive=False,
    )
    again = driver.add(case.prompt, params, seed=8)
    driver.run()
    assert driver.tokens[again, 0] == plain.tokens[name, 0]
    stats = driver.loop.stats()
    if speculate != "ngram":
        assert stats.spec_accepted_grammar == stats.spec_drafted_grammar > 10
        assert stats.steps < 0.75 * plain.loop.stats().steps


def test_chi_square_sampled_tokens_follow_the_targets_distribution() -> None:
    """The third token of many seeds, with a draft model that disagrees, against its exact distribution given the first two."""
    model, draft = tiny_model("llama"), tiny_model("llama")
    for parameter in draft.hf_model.parameters():
        parameter.data.mul_(1.15)
    prompt = tiny_cases("llama")[0].prompt
    counts: dict[tuple[int, ...], dict[int, int]] = {}
    draws = 1500
    driver = EngineDriver(
        model,
        draft=draft,
        speculate="draft:other",
        speculate_adaptive=False,
        speculate_tokens=2,
        max_num_batched_tokens=4096,
        num_kv_blocks=4000,
        max_num_seqs=100,
    )
    # Four likely tokens, so that the same two come first again and again.
    params = SamplingParams(max_tokens=3, temperature=1.0, top_k=3, ignore_eos=True)
    for start in range(0, draws, 100):
        names = [driver.add(prompt, params, seed=start + k) for k in range(100)]
        driver.run()
        for name in names:
            *first, third = driver.tokens[name, 0]
            row = counts.setdefault(tuple(first), {})
            row[third] = row.get(third, 0) + 1
    stats = driver.loop.stats()
    assert 0.1 < stats.spec_accepted_draft / stats.spec_drafted_draft < 0.95, "the draft is of no use for this test"
    chi_square, freedom = 0.0, 0
    for first, found in counts.items():
        total = sum(found.values())
        expected = _probabilities([*prompt.token_ids, *first], params)
        cells = {token: total * p for token, p in expected.items() if total * p >= 5}
        if len(cells) < 2:
            continue
        chi_square += sum((found.get(token, 0) - want) ** 2 / want for token, want in cells.items())
        freedom += len(cells) - 1
    assert freedom >= 6
    # Mean `freedom`, standard deviation sqrt(2 freedom); five deviations are 1 in a million.
    assert chi_square < freedom + 5 * (2 * freedom) ** 0.5


@torch.inference_mode()
def _probabilities(token_ids: list[int], params: SamplingParams) -> dict[int, float]:
    """The next token's by transformers' own forward."""
    logits = tiny_hf_model("llama")(torch.tensor([token_ids])).logits[0, -1].float() / params.temperature
    top = logits.topk(params.top_k)
    return dict(zip(top.indices.tolist(), top.values.softmax(0).tolist(), strict=True))
