"""The engine loop on a tiny model: failures, forks, grammars, what is held and for how long."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from foveal.core.errors import ModelLoadError, PromptTooLongError
from foveal.core.sampling_params import GuidedDecoding, SamplingParams
from foveal.engine.execution.guided import GuideFactory
from foveal.engine.scheduling.request import FinishReason, Request
from support.engine_driver import EngineDriver, greedy
from support.tiny_models import NUM_NEW_TOKENS, tiny_cases, tiny_model, tiny_processor


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_a_step_that_fails_ends_its_requests_and_the_engine_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llava")
    driver = EngineDriver(model)
    case = tiny_cases("llava")[0]
    encode = model.encode_images

    def broken(images: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model, "encode_images", broken)
    name = driver.add(case.prompt, greedy(4))
    driver.run()
    assert driver.finish[name, 0] is FinishReason.ERROR
    assert not driver.loop.runner.feature_hashes
    monkeypatch.setattr(model, "encode_images", encode)
    assert driver.answers([case.prompt], greedy(NUM_NEW_TOKENS)) == [list(case.expected)]


@pytest.mark.parametrize("forked", [False, True])
def test_a_step_that_fails_ends_every_choice_of_its_requests(forked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    driver = EngineDriver(model)
    name = driver.add(
        tiny_cases("llama")[0].prompt, SamplingParams(n=3, temperature=1.0, max_tokens=50, ignore_eos=True)
    )
    if forked:
        while not driver.tokens[name, 2]:
            driver.step()
        driver.loop.finish_choice(name, 1)  # it found its stop string, and is not told of again

    def broken(step: Any, kv_cache: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(model, "forward", broken)
    driver.run()
    open_choices = {0, 2} if forked else {0, 1, 2}
    assert {index for (_, index), reason in driver.finish.items() if reason is FinishReason.ERROR} == open_choices
    driver.loop.check_idle()


def test_an_engine_whose_first_step_fails_does_not_say_that_it_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")

    def broken(step: Any, kv_cache: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(model, "forward", broken)
    with pytest.raises(ModelLoadError, match="first step failed"):
        EngineDriver(model).loop.warm_up()


def test_waiting_for_the_step_under_way_counts_as_waiting() -> None:
    driver = EngineDriver(tiny_model("llama"))
    prompt = tiny_cases("llama")[0].prompt
    request = Request("late", list(prompt.token_ids), greedy(1), arrival_s=driver.clock.now_s())
    driver.clock.advance(0.25)  # the step during which it came
    driver.loop.add(request, prompt, prepared_s=0.05)
    events = driver.loop.step()
    while not events:
        events = driver.loop.step()
    assert events[0].queue_s == pytest.approx(driver.clock.now_s() - 0.05)


def test_the_same_picture_is_encoded_once_for_requests_that_come_together_and_later() -> None:
    driver = EngineDriver(tiny_model("llava"), enable_prefix_caching=False)
    case = tiny_cases("llava")[0]
    driver.answers([case.prompt] * 3, greedy(4))
    driver.answers([case.prompt], greedy(4))
    assert driver.loop.stats().encoded_images == 1


def test_features_leave_the_cache_when_its_bytes_are_spent() -> None:
    model = tiny_model("llava")
    one_image = 16 * model.spec.feature_width * 4
    driver = EngineDriver(model, feature_cache_bytes=one_image, enable_prefix_caching=False)
    cases = [case for case in tiny_cases("llava") if case.prompt.images]
    answers = driver.answers([case.prompt for case in cases], greedy(NUM_NEW_TOKENS))
    assert answers == [list(case.expected) for case in cases]
    assert len(driver.loop.runner.feature_hashes) <= 1


def test_sampled_choices_differ_and_each_is_what_it_would_be_alone() -> None:
    model, case = tiny_model("qwen2_5_vl"), tiny_cases("qwen2_5_vl")[0]
    sampling = SamplingParams(n=4, temperature=1.0, max_tokens=12, ignore_eos=True)
    together = EngineDriver(model)
    name = together.add(case.prompt, sampling, seed=5)
    together.run()
    crowded = EngineDriver(model, max_num_batched_tokens=7)
    others = [crowded.add(c.prompt, sampling, seed=k) for k, c in enumerate(tiny_cases("qwen2_5_vl")[1:])]
    again = crowded.add(case.prompt, sampling, seed=5)
    crowded.run(before_step=lambda step: crowded.loop.scheduler.preempt(others[0]) if step == 9 else None)
    choices = [together.tokens[name, k] for k in range(4)]
    assert len({tuple(choice) for choice in choices}) == 4
    assert [crowded.tokens[again, k] for k in range(4)] == choices


def test_each_choice_follows_the_grammar_by_itself() -> None:
    model = tiny_model("llama")
    factory = GuideFactory(tiny_processor("llama").tokenizer, model.spec.eos_token_ids or (2,))
    driver = EngineDriver(model, guide_factory=factory)
    sampling = SamplingParams(n=3, temperature=1.0, max_tokens=20, guided=GuidedDecoding(regex="(cat|dog)[0-9]{4}"))
    prompt = tiny_cases("llama")[0].prompt
    name = driver.add(prompt, sampling, seed=3)
    driver.run()
    texts = [
        tiny_processor("llama").tokenizer.decode(driver.tokens[name, k], skip_special_tokens=True) for k in range(3)
    ]
    for text in texts:
        assert text[:3] in ("cat", "dog")
        assert text[3:].isdigit()
        assert len(text) == 7
    assert len(set(texts)) > 1


@pytest.mark.parametrize("steps", [0, 1, 2, 6])
def test_aborting_after_any_number_of_steps_leaves_nothing(steps: int) -> None:
    driver = EngineDriver(tiny_model("llava"), max_num_batched_tokens=5)
    name = driver.add(tiny_cases("llava")[2].prompt, greedy(NUM_NEW_TOKENS, n=2))
    for _ in range(steps):
        driver.step()
    driver.loop.abort(name)
    driver.loop.abort(name)
    driver.run()
    assert driver.loop.stats().kv_blocks_used == 0


def test_one_stopped_choice_does_not_end_the_others() -> None:
    driver = EngineDriver(tiny_model("llava"))
    name = driver.add(tiny_cases("llava")[0].prompt, greedy(NUM_NEW_TOKENS, n=2))
    while len(driver.tokens[name, 1]) < 3:
        driver.step()
    driver.loop.finish_choice(name, 0)
    driver.run()
    assert len(driver.tokens[name, 0]) == 3
    assert driver.tokens[name, 1] == list(tiny_cases("llava")[0].expected)


@pytest.mark.parametrize("steps", [0, 1, 20])
def test_a_request_past_its_deadline_times_out_with_all_its_choices(steps: int) -> None:
    driver = EngineDriver(tiny_model("llama"))
    name = driver.add(tiny_cases("llama")[0].prompt, greedy(100, n=2), deadline_s=1.0)
    for _ in range(steps):
        driver.step()
    driver.clock.advance(2.0)
    driver.run()
    assert FinishReason.TIMEOUT in driver.finish.values()
    assert name not in driver.loop._waterfalls


def test_a_prompt_that_can_never_fit_is_refused_and_nothing_of_it_is_kept() -> None:
    driver = EngineDriver(tiny_model("llama"), num_kv_blocks=2)
    with pytest.raises(PromptTooLongError):
        driver.add(tiny_cases("llama")[0].prompt, greedy(4))
    assert driver.loop.runner.num_held == 0
    driver.loop.check_idle()


def test_warm_up_leaves_no_trace_in_caches() -> None:
    driver = EngineDriver(tiny_model("llava"))
    driver.loop.warm_up()
    driver.loop.check_idle()
    stats = driver.loop.scheduler.stats()
    assert stats.kv_blocks_cached == 0
    assert driver.loop.runner.num_held == 0
