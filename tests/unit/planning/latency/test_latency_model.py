"""The latency model: what it must never say, whatever its coefficients, and that a fit finds what made the data."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.core.errors import ConfigurationError
from foveal.planning.latency.fit import FitError, MeasuredStep, fit_error, fit_latency_model
from foveal.planning.latency.latency_file import Calibration, LatencyKey, load_calibration, save_calibration
from foveal.planning.latency.latency_model import STEP_TERMS, VISION_TERMS, LatencyModel
from foveal.planning.latency.step_work import FEW_TOKENS, StepWork, attended_pairs

COEFFICIENT = st.floats(0, 1e-2, allow_subnormal=False)
MODELS = st.builds(
    LatencyModel,
    st.lists(COEFFICIENT, min_size=len(STEP_TERMS), max_size=len(STEP_TERMS)).map(tuple),
    st.lists(COEFFICIENT, min_size=len(VISION_TERMS), max_size=len(VISION_TERMS)).map(tuple),
)
WORK = st.builds(
    StepWork,
    tokens=st.integers(1, 2000),
    samples=st.integers(0, 64),
    decode_kv=st.integers(0, 100_000),
    prefill_pairs=st.integers(0, 1_000_000),
    images=st.lists(st.integers(1, 2000), max_size=5).map(tuple),
)
TRUTH = LatencyModel((4e-3, 8e-5, 3e-5, 5e-5, 9e-5, 1e-5, 2e-7, 3e-8), (1e-3, 2e-3, 1e-5, 1e-8))


@given(WORK, WORK, MODELS)
def test_more_work_never_takes_less_time(work: StepWork, more: StepWork, model: LatencyModel) -> None:
    both = StepWork(
        work.tokens + more.tokens,
        work.samples + more.samples,
        work.decode_kv + more.decode_kv,
        work.prefill_pairs + more.prefill_pairs,
        work.images + more.images,
    )
    assert model.step_s(both) >= model.step_s(work) * (1 - 1e-12)


@given(st.integers(0, 3000), st.integers(1, 500))
def test_attended_pairs_are_those_below_the_diagonal(start: int, count: int) -> None:
    assert attended_pairs(start, count) == sum(start + k + 1 for k in range(count))


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(1, 40), st.integers(0, 1)), max_size=6))
def test_adding_rows_one_by_one_is_the_same_work_as_all_at_once(rows: list[tuple[int, int, int]]) -> None:
    work = StepWork()
    for row in rows:
        work = work.with_row(*row)
    assert work == StepWork.of_rows(rows)


@given(MODELS, WORK, st.integers(0, 1000), st.integers(0, 300), st.floats(0, 5))
def test_the_largest_chunk_fits_and_no_longer_one_does(
    model: LatencyModel, work: StepWork, start: int, most: int, limit_s: float
) -> None:
    found = model.largest_chunk(work, start, most, limit_s)
    fitting = [n for n in range(1, most + 1) if model.step_s(work.with_row(start, n, 1)) <= limit_s]
    assert found == max(fitting, default=0)


def test_a_prompt_in_chunks_is_the_sum_of_its_steps() -> None:
    steps = [StepWork().with_row(0, 512), StepWork().with_row(512, 512), StepWork().with_row(1024, 6, 1)]
    assert TRUTH.prefill_s(1030, chunk=512) == pytest.approx(sum(map(TRUTH.decoder_s, steps)))
    assert TRUTH.prefill_s(30, cached=1000) < TRUTH.prefill_s(1030)


def test_a_request_is_its_encoding_its_prompt_and_its_tokens() -> None:
    alone = TRUTH.request_s(200, 65, [64])
    expected = TRUTH.encode_s([64]) + TRUTH.prefill_s(200) + 64 * TRUTH.decode_s(1, 232)
    assert alone == pytest.approx(expected)
    assert TRUTH.request_s(200, 65, [64], concurrency=16) > alone


@pytest.mark.parametrize("wrong", [(1.0,), (*TRUTH.step[:-1], -1e-9)])
def test_coefficients_of_a_wrong_number_or_sign_are_refused(wrong: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="coefficients"):
        LatencyModel(wrong)


def test_a_fit_finds_the_model_behind_noisy_steps() -> None:
    rng = random.Random(1)
    steps = []
    for number in range(120):
        work = StepWork()
        for _ in range(rng.randrange(40)):
            work = work.with_row(rng.randrange(1000), 1, 1)
        if rng.random() < 0.6 or not work.tokens:
            work = work.with_row(rng.choice((0, rng.randrange(1500))), rng.randrange(FEW_TOKENS + 1, 512), 1)
        seconds = TRUTH.step_s(work) * rng.lognormvariate(0, 0.03)
        steps.append(MeasuredStep(f"step {number}", work, seconds, 0.03, held_out=number % 4 == 0))
    for count in (1, 2, 3, 4, 8):
        for patches in (64, 256, 576):
            work = StepWork(images=(patches,) * count)
            seconds = TRUTH.step_s(work) * rng.lognormvariate(0, 0.03)
            steps.append(MeasuredStep(f"{count} of {patches}", work, seconds, held_out=count == 3))
    model = fit_latency_model(steps)
    error = fit_error(model, [step for step in steps if step.held_out])
    assert error is not None
    assert error.median < 0.04
    assert error.p90 < 0.1
    assert min(*model.step, *(model.vision or ())) >= 0


def test_a_term_that_the_data_would_make_negative_is_left_out() -> None:
    # Logits rows seem to save time here: noise, or a kernel that likes them.
    steps = [
        MeasuredStep(f"{n}", StepWork(tokens=n, samples=n % 5), 1e-3 + 1e-4 * n - 5e-5 * (n % 5)) for n in range(1, 60)
    ]
    model = fit_latency_model(steps)
    assert model.step[STEP_TERMS.index("logits rows")] == 0
    assert model.decode_s(2, 0) <= model.decode_s(3, 0)


def _calibration() -> Calibration:
    key = LatencyKey(
        cpu="a processor",
        threads=2,
        model="0" * 32,
        dtype="float32",
        decoder="native",
        quantize="int8",
        kv_dtype="int8",
        version="1",
    )
    return Calibration(
        key=key,
        model_name="demo",
        model=TRUTH,
        weight_bytes=10**8,
        bandwidth_bytes_s=5e10,
        rounds=5,
        seconds=20.0,
        date="2026-01-01",
        decoder_error=FitError(16, 0.02, 0.05, 0.01),
        vision_error=None,
        steps=(MeasuredStep("decode 1 x 32", StepWork(1, 1, 33), 5e-3),),
    )


def test_a_saved_calibration_is_found_again_by_the_same_key_only(tmp_path: Path) -> None:
    from dataclasses import replace

    saved = _calibration()
    path = save_calibration(saved, tmp_path)
    found = load_calibration(saved.key, tmp_path)
    assert found == replace(saved, steps=())
    assert load_calibration(path) == found
    for change in ({"threads": 1}, {"kv_dtype": "float32"}, {"version": "2"}, {"cpu": "another"}, {"model": "1" * 32}):
        assert load_calibration(replace(saved.key, **change), tmp_path) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", ["", "{}", '{"schema": 99}', "[]"])
def test_a_damaged_calibration_is_an_error_that_says_what_to_do(tmp_path: Path, damage: str) -> None:
    path = save_calibration(_calibration(), tmp_path)
    path.write_text(damage)
    with pytest.raises(ConfigurationError, match="foveal calibrate"):
        load_calibration(path)


def test_a_missing_file_that_was_named_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="foveal calibrate"):
        load_calibration(tmp_path / "nothing.json")


def test_the_file_says_what_the_fixed_term_is_made_of(tmp_path: Path) -> None:
    document = json.loads(save_calibration(_calibration(), tmp_path).read_text())
    assert document["fixed_of_which_weights_s"] == pytest.approx(2e-3)
    assert document["held_out_error"]["decoder"]["p90"] == 0.05
    assert document["steps"][0]["predicted_s"] == pytest.approx(TRUTH.decode_s(1, 33))
