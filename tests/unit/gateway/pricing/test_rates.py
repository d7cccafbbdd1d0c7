"""One contract for all rates, and how rates are learnt from the times of answers."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.core.errors import ConfigurationError
from foveal.gateway.pricing.rates import CalibratedRates, CostRates, LearntRates, Timing
from foveal.gateway.pricing.rules.rule import VisionWork
from foveal.planning.latency.latency_model import STEP_TERMS, LatencyModel

_MODEL = LatencyModel((2e-3, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-8, 1e-8), (1e-3, 1e-3, 1e-5, 1e-9))
_RATES: dict[str, CostRates] = {
    "calibrated": CalibratedRates(_MODEL),
    "calibrated text model": CalibratedRates(LatencyModel(_MODEL.step, None)),
    "learnt": LearntRates(),
    "given": LearntRates(0.1, 0.2, 5.0),
}


def _image(patches: int) -> VisionWork:
    return VisionWork(patches // 4, 2, patches)


@pytest.mark.parametrize("rates", _RATES.values(), ids=_RATES)
def test_no_time_is_negative_and_none_falls_when_work_grows(rates: CostRates) -> None:
    for few, many in itertools.pairwise((0, 1, 7, 64, 1000, 5000)):
        assert 0 <= rates.prefill_ms(few) <= rates.prefill_ms(many)
        assert 0 <= rates.decode_ms(100, few) <= rates.decode_ms(100, many)
        assert 0 <= rates.encode_ms([_image(few)]) <= rates.encode_ms([_image(many)])
    assert rates.encode_ms([]) == 0
    assert rates.encode_ms([_image(400)]) <= rates.encode_ms([_image(400), _image(400)])


def test_calibrated_rates_are_those_of_the_latency_model() -> None:
    rates = CalibratedRates.of_coefficients(list(_MODEL.step), list(_MODEL.vision or ()))

    assert rates.encode_ms([_image(256), _image(1024)]) == pytest.approx(1e3 * _MODEL.encode_s([256, 1024]))
    assert rates.prefill_ms(1300) == pytest.approx(1e3 * _MODEL.prefill_s(1300))


def test_coefficients_of_another_version_are_refused() -> None:
    with pytest.raises(ValueError, match=str(len(STEP_TERMS))):
        CalibratedRates.of_coefficients([1.0], None)


def test_a_latency_file_that_is_not_there_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="foveal calibrate"):
        CalibratedRates.of_file(tmp_path / "none.json")


def test_rates_are_learnt_from_streams_though_most_answers_waited() -> None:
    """Time above the machine's own is queueing and batching: the rate follows the quick ones."""
    rates, source = LearntRates(), random.Random(5)
    for _ in range(400):
        prompt, output = source.randint(100, 3000), source.randint(20, 200)
        vision = source.choice([0, 0, 800])
        slowdown = source.choice([1.0, 1.05, 1.1, 2.0, 3.0])
        first = (0.05 * prompt + 0.2 * vision) * slowdown
        total = first + 8.0 * slowdown * (output - 1)
        rates.learn(Timing(first, total, True), prompt, 0, vision, output)

    assert rates.prefill_ms(1000) == pytest.approx(50, rel=0.35)
    assert rates.decode_ms(0, 100) == pytest.approx(800, rel=0.35)
    assert rates.encode_ms([VisionWork(800, 2, 3200)]) == pytest.approx(160, rel=0.8)


def test_an_answer_that_is_no_stream_teaches_decoding() -> None:
    rates = LearntRates(prefill_ms=0.1)
    for _ in range(50):
        rates.learn(Timing(1010.0, 1010.0, False), 100, 0, 0, 50)

    assert rates.decode_ms(0, 50) == pytest.approx(1000, rel=0.05)


def test_a_cached_prompt_is_not_taken_for_a_fast_machine() -> None:
    rates = LearntRates()
    for _ in range(20):
        rates.learn(Timing(100.0, 500.0, True), 1000, 0, 0, 20)
    for _ in range(20):
        rates.learn(Timing(5.0, 400.0, True), 1000, 990, 0, 20)

    assert rates.prefill_ms(1000) == pytest.approx(100, rel=0.2)


def test_given_rates_are_not_learnt() -> None:
    rates = LearntRates(0.1, 0.2, 5.0)
    for _ in range(20):
        rates.learn(Timing(5000.0, 90_000.0, True), 1000, 0, 500, 20)

    assert (rates.prefill_ms(10), rates.decode_ms(0, 10), rates.encode_ms([VisionWork(10, 0, 0)])) == (2.0, 50.0, 1.0)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(), st.floats(), st.booleans(), *(st.integers(-5, 10_000) for _ in range(4))), max_size=20
    )
)
def test_no_timing_breaks_the_rates(answers: list[tuple[float, float, bool, int, int, int, int]]) -> None:
    rates = LearntRates()
    for first, total, is_stream, *counts in answers:
        rates.learn(Timing(first, total, is_stream), *counts)

    assert 0 < rates.prefill_ms(1) < float("inf")
    assert 0 < rates.decode_ms(0, 1) < float("inf")
