"""The engine's tokens are those of single-request `generate` in fp32, whatever the schedule.

Every family, token budgets 5, 11 and 64, a cold pool, a prefix hit and forced preemption, requests of 0 to 3 images together
in one batch that starts at different steps.
"""

from __future__ import annotations

from hashlib import blake2b

import pytest
import torch

from foveal.engine.scheduling.request import Request
from foveal.models.image_input import PromptInput
from support.engine_driver import EngineDriver, greedy
from support.tiny_models import FAMILIES, NUM_NEW_TOKENS, TinyCase, tiny_cases, tiny_image, tiny_model, tiny_processor

BUDGETS = (5, 11, 64)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _serve(driver: EngineDriver, cases: tuple[TinyCase, ...], *, preempt: bool = False) -> list[tuple[int, ...]]:
    """Requests arrive one every other step, so that prefill and decode of different requests share batches."""
    names: list[str] = []

    def arrive(step: int) -> None:
        if step % 2 == 0 and len(names) < len(cases):
            names.append(driver.add(cases[len(names)].prompt, greedy(NUM_NEW_TOKENS)))
        # Bounded: without a prefix cache a long prompt would lose all its progress again and again.
        if preempt and step < 60 and step % 5 == 4:
            driver.loop.scheduler.preempt(names[step // 5 % len(names)])

    arrive(0)
    driver.run(before_step=lambda step: arrive(step + 1) if step else None)
    while len(names) < len(cases):  # a short first request may end before the last one arrives
        names.append(driver.add(cases[len(names)].prompt, greedy(NUM_NEW_TOKENS)))
        driver.run()
    return [tuple(driver.tokens[name, 0]) for name in names]


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("family", FAMILIES)
def test_engine_is_token_exact_from_a_cold_pool(family: str, budget: int) -> None:
    cases = tiny_cases(family)
    driver = EngineDriver(tiny_model(family), max_num_batched_tokens=budget)
    assert _serve(driver, cases) == [case.expected for case in cases]


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("family", FAMILIES)
def test_engine_is_token_exact_after_a_prefix_hit(family: str, budget: int) -> None:
    cases = tiny_cases(family)
    driver = EngineDriver(tiny_model(family), max_num_batched_tokens=budget)
    _serve(driver, cases)
    before = driver.loop.stats().prefix_cache_hits
    assert _serve(driver, cases) == [case.expected for case in cases]
    assert driver.loop.stats().prefix_cache_hits > before


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("family", FAMILIES)
def test_engine_is_token_exact_under_forced_preemption(family: str, budget: int) -> None:
    cases = tiny_cases(family)
    driver = EngineDriver(tiny_model(family), max_num_batched_tokens=budget, enable_prefix_caching=budget != 11)
    assert _serve(driver, cases, preempt=True) == [case.expected for case in cases]
    assert driver.loop.stats().num_preemptions > 0


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3"])
def test_engine_is_token_exact_when_the_pool_is_too_small_for_all_requests(family: str) -> None:
    cases = tiny_cases(family)
    longest = max(len(case.prompt.token_ids) for case in cases) + NUM_NEW_TOKENS
    driver = EngineDriver(
        tiny_model(family), max_num_batched_tokens=64, num_kv_blocks=-(-longest // 4) + 2, enable_prefix_caching=False
    )
    assert driver.answers([case.prompt for case in cases], greedy(NUM_NEW_TOKENS)) == [list(c.expected) for c in cases]


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gpt2"])
def test_baselines_give_the_same_tokens(family: str) -> None:
    """Static batching and recomputing without a KV cache are slower, not different."""
    cases = tiny_cases(family)
    for options in ({"batching": "static"}, {"kv_cache": False, "max_num_batched_tokens": 512}):
        driver = EngineDriver(tiny_model(family), **options)
        answers = driver.answers([case.prompt for case in cases], greedy(NUM_NEW_TOKENS))
        assert answers == [list(case.expected) for case in cases], options


@pytest.mark.parametrize("family", ["llava", "qwen3_vl", "llama"])
def test_choices_of_a_greedy_request_are_equal_and_share_the_prompt(family: str) -> None:
    case = tiny_cases(family)[0]
    driver = EngineDriver(tiny_model(family))
    name = driver.add(case.prompt, greedy(NUM_NEW_TOKENS, n=3))
    driver.run()
    assert [tuple(driver.tokens[name, k]) for k in range(3)] == [case.expected] * 3
    assert driver.loop.stats().prompt_tokens == len(case.prompt.token_ids)


def _with_other_picture(case: TinyCase, family: str) -> PromptInput:
    """The same text and sizes, other pixels."""
    processor = tiny_processor(family)
    pictures = [tiny_image(90 + k, image.size) for k, image in enumerate(case.images)]
    return processor.prepare(case.text, pictures)


def _answers_in_a_row(driver: EngineDriver, prompts: list[PromptInput]) -> list[list[int]]:
    return [driver.answers([prompt], greedy(NUM_NEW_TOKENS))[0] for prompt in prompts]


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "qwen3_vl", "idefics3", "gemma3"])
def test_a_prefix_hit_never_serves_the_answer_to_another_picture(family: str) -> None:
    case = tiny_cases(family)[0]
    prompts = [case.prompt, _with_other_picture(case, family)]
    cold = [EngineDriver(tiny_model(family)).answers([prompt], greedy(NUM_NEW_TOKENS))[0] for prompt in prompts]
    assert cold[0] != cold[1], "the pictures make no difference to this model: the test would prove nothing"
    assert _answers_in_a_row(EngineDriver(tiny_model(family)), prompts) == cold


def test_an_image_blind_prefix_key_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutation behind the test above: keys over tokens alone give the second request the first one's picture."""

    def blind_key(request: Request, index: int, block_size: int, parent: bytes) -> bytes:
        tokens = request.token_slice(index * block_size, (index + 1) * block_size)
        return blake2b(parent + repr(tokens).encode(), digest_size=16).digest()

    monkeypatch.setattr("foveal.engine.scheduling.prefix_cache.block_key", blind_key)
    case = tiny_cases("llava")[0]
    prompts = [case.prompt, _with_other_picture(case, "llava")]
    cold = EngineDriver(tiny_model("llava")).answers([prompts[1]], greedy(NUM_NEW_TOKENS))[0]
    assert _answers_in_a_row(EngineDriver(tiny_model("llava")), prompts)[1] != cold
