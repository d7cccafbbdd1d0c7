"""Arrival processes of the open loop."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import pytest

from foveal.core.errors import ConfigurationError
from foveal.evaluation.load.arrival import arrival_offsets


def gaps(burstiness: float) -> list[float]:
    offsets = arrival_offsets(20.0, random.Random(1), burstiness=burstiness, num_requests=8001)
    return [b - a for a, b in itertools.pairwise(offsets)]


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gaps_have_the_mean_of_the_rate_and_the_variance_of_the_burstiness(burstiness: float) -> None:
    observed = gaps(burstiness)
    assert statistics.mean(observed) == pytest.approx(1 / 20, rel=0.08)
    squared_variation = statistics.variance(observed) / statistics.mean(observed) ** 2
    assert squared_variation == pytest.approx(1 / burstiness, rel=0.15)


def test_a_poisson_process_has_exponential_gaps() -> None:
    observed = gaps(1.0)
    for multiple in (0.5, 1.0, 2.0):
        beyond = sum(gap > multiple / 20 for gap in observed) / len(observed)
        assert beyond == pytest.approx(math.exp(-multiple), abs=0.02)


def test_the_schedule_ends_at_the_number_or_the_duration_whichever_comes_first() -> None:
    by_time = arrival_offsets(50.0, random.Random(0), duration_s=2.0)
    assert max(by_time) < 2.0
    assert 70 < len(by_time) < 130
    assert arrival_offsets(50.0, random.Random(0), duration_s=2.0, num_requests=5) == by_time[:5]
    assert by_time[0] == 0.0


def test_an_infinite_rate_sends_everything_at_once() -> None:
    assert arrival_offsets(math.inf, random.Random(0), num_requests=3) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("rate", "kwargs"),
    [
        (0.0, {"num_requests": 1}),
        (1.0, {"num_requests": 1, "burstiness": 0.0}),
        (1.0, {}),
        (math.inf, {"duration_s": 1}),
    ],
)
def test_schedules_that_cannot_be_are_refused(rate: float, kwargs: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        arrival_offsets(rate, random.Random(0), **kwargs)  # type: ignore[arg-type]
