"""Steps keep to the target while requests decode, and prompts get through all the same."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.engine.scheduling.pacing.correction import RANGE, StepCorrection
from foveal.engine.scheduling.pacing.latency_control import LatencyTargets
from foveal.engine.scheduling.pacing.prompt_share import LearnedShare, PredictedShare, PromptShare
from foveal.engine.scheduling.pacing.step_pace import FORCED_AFTER, FORCED_TOKENS, StepPace
from foveal.planning.latency.latency_model import LatencyModel
from foveal.planning.latency.step_work import StepWork
from unit.engine.scheduling.builders import config, image, request
from unit.engine.scheduling.pacing.paced_loop import MACHINE, PacedLoop

BIG = {"num_blocks": 2000, "block_size": 16, "max_model_len": 4000, "max_num_batched_tokens": 512, "max_num_seqs": 16}


def _crowd(loop: PacedLoop, prompts: list[int], *, decoding: int = 4) -> None:
    """Some requests decode already, then prompts come."""
    loop.add(*(request(f"old-{k}", 8, max_tokens=200) for k in range(decoding)))
    while any(not r.output_token_ids for r in map(loop.scheduler.get, (f"old-{k}" for k in range(decoding))) if r):
        loop.step()
    loop.steps.clear()
    loop.add(*(request(f"new-{k}", length, max_tokens=5) for k, length in enumerate(prompts)))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 1500), min_size=1, max_size=5), st.floats(6e-3, 60e-3))
def test_with_a_right_model_no_step_with_decoding_requests_exceeds_the_target(
    prompts: list[int], target_s: float
) -> None:
    loop = PacedLoop(config(**BIG), LatencyTargets(tpot_s=target_s), MACHINE)
    _crowd(loop, prompts)
    late = [step for step in loop.run() if step.decode_rows and step.prompt_tokens and step.seconds > target_s * 1.001]
    # What has to be given to prompts in spite of the target is little, and seldom.
    assert all(step.prompt_tokens <= FORCED_TOKENS for step in late)
    assert len(late) <= len(loop.steps) / FORCED_AFTER + 1


@given(st.floats(1e-4, 50e-3), st.sampled_from(["predicted", "learned"]))
@settings(max_examples=30, deadline=None)
def test_prompts_never_starve_whatever_the_target(target_s: float, kind: str) -> None:
    loop = PacedLoop(config(**BIG), LatencyTargets(tpot_s=target_s), MACHINE if kind == "predicted" else None)
    _crowd(loop, [600])
    fruitless = 0
    for step in loop.run():
        fruitless = 0 if step.prompt_tokens or not step.prompts_waited else fruitless + 1
        assert fruitless <= FORCED_AFTER


@pytest.mark.parametrize("known", [MACHINE, None])
def test_a_prompt_has_the_whole_budget_while_nothing_decodes(known: LatencyModel | None) -> None:
    loop = PacedLoop(config(**BIG), LatencyTargets(tpot_s=1e-3), known)
    loop.add(request("a", 1100))
    loop.run()
    assert [step.prompt_tokens for step in loop.steps if step.prompt_tokens] == [512, 512, 76]


def test_the_chunk_shrinks_as_more_requests_decode() -> None:
    chunks = []
    for decoding in (1, 6, 12):
        loop = PacedLoop(config(**BIG), LatencyTargets(tpot_s=20e-3), MACHINE)
        _crowd(loop, [1000], decoding=decoding)
        loop.step()
        chunks.append(loop.steps[-1].prompt_tokens)
    assert chunks[0] > chunks[1] > chunks[2] > 0


@pytest.mark.parametrize("factor", [0.5, 1.7, 3.0])
def test_a_machine_of_another_speed_than_calibrated_is_corrected_for(factor: float) -> None:
    target_s = 40e-3
    loop = PacedLoop(config(**BIG), LatencyTargets(tpot_s=target_s), MACHINE, factor=factor)
    _crowd(loop, [3000, 3000])
    loop.run()
    full = [step for step in loop.steps if step.decode_rows and step.prompt_tokens > FORCED_TOKENS]
    assert loop.control.correction.factor == pytest.approx(factor, rel=0.02)
    assert all(step.seconds <= 1.02 * target_s for step in full[5:])
    assert max(step.seconds for step in full) > 0.9 * target_s


@given(st.floats(0.25, 4), st.lists(st.floats(-0.2, 0.2), min_size=80, max_size=80))
def test_the_correction_converges_through_noise(factor: float, noise: list[float]) -> None:
    correction = StepCorrection()
    for error in noise:
        correction.observe(1.0, factor * (1 + error))
    assert factor * 0.75 <= correction.factor <= factor * 1.25


def test_one_disturbed_step_hardly_moves_the_correction() -> None:
    correction = StepCorrection()
    for _ in range(20):
        correction.observe(1.0, 1.0)
    correction.observe(1.0, 1000.0)
    assert correction.factor < 1.1
    correction.observe(1.0, 0.0)  # a clock that stands still
    for _ in range(1000):
        correction.observe(1.0, 1e9)
    assert correction.factor <= RANGE * 1.001


@pytest.mark.parametrize("factor", [1.0, 4.0])
def test_without_a_calibration_the_pace_is_learned(factor: float) -> None:
    target_s = factor * 25e-3
    loop = PacedLoop(config(**BIG), LatencyTargets(tpot_s=target_s), None, factor=factor)
    _crowd(loop, [3000, 3000])
    loop.run()
    busy = [step for step in loop.steps if step.decode_rows and step.prompt_tokens][10:]
    assert len(busy) > 10
    within = [step.seconds <= 1.15 * target_s for step in busy]
    assert sum(within) >= 0.8 * len(within)
    # And the time is used: sawteeth from half to full.
    assert sum(step.seconds for step in busy) / len(busy) > 0.5 * target_s


def test_an_image_that_never_fits_the_target_goes_alone_now_and_then() -> None:
    loop = PacedLoop(config(**BIG, feature_cache_bytes=10**6), LatencyTargets(tpot_s=6e-3), MACHINE)
    _crowd(loop, [])
    loop.add(*(request(f"new-{k}", [1, image(f"picture {k}"), 2], max_tokens=3) for k in range(3)))
    steps = loop.run()
    with_images = [index for index, step in enumerate(steps) if step.images and step.decode_rows]
    assert [steps[index].images for index in with_images] == [1, 1, 1]
    assert all(b - a > FORCED_AFTER for a, b in pairwise(with_images))


def test_images_that_fit_the_target_are_not_held_back() -> None:
    loop = PacedLoop(config(**BIG, feature_cache_bytes=10**6), LatencyTargets(tpot_s=60e-3), MACHINE)
    _crowd(loop, [])
    loop.add(*(request(f"new-{k}", [1, image(f"picture {k}"), 2], max_tokens=3) for k in range(3)))
    loop.step()
    assert loop.steps[-1].images == 3
    assert loop.steps[-1].seconds <= 60e-3


def test_atomic_spans_are_not_cut_and_still_get_through() -> None:
    options = BIG | {"atomic_image_spans": True, "feature_cache_bytes": 10**6}
    loop = PacedLoop(config(**options), LatencyTargets(tpot_s=7e-3), MACHINE, checked=True)
    _crowd(loop, [])
    loop.add(request("picture", [1, 2, image("large", 60), 3], max_tokens=3))
    loop.run()  # the simulated runner asserts that no row cuts a span
    assert any(step.images and step.decode_rows for step in loop.steps)


SHARES: dict[str, PromptShare] = {
    "predicted": PredictedShare(MACHINE, StepCorrection(), 20e-3),
    "learned": LearnedShare(20e-3, 512),
}


@pytest.mark.parametrize("name", SHARES)
@given(st.integers(1, 30), st.integers(0, 2000), st.integers(0, 512))
def test_a_share_gives_between_nothing_and_what_is_asked(name: str, rows: int, start: int, most: int) -> None:
    work = StepWork.of_rows([(100, 1, 1)] * rows)
    assert 0 <= SHARES[name].longest_chunk(work, start, most) <= most


def test_nothing_wanted_is_no_starvation() -> None:
    pace = StepPace(PredictedShare(MACHINE, StepCorrection(), 1e-6))
    for _ in range(3 * FORCED_AFTER):
        pace.begin()
        pace.limit([(10, 1, 1)])
        pace.end()
    pace.limit([(10, 1, 1)])
    assert not pace.forced
