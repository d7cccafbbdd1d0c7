from __future__ import annotations

from foveal.gateway.resilience.config import OutlierConfig
from foveal.gateway.resilience.outliers import Slowness, slowest_outlier

CONFIG = OutlierConfig(slowness=3.0, min_requests=5, max_fraction=0.34)


def slowness(ratio: float, num_requests: int = 10) -> Slowness:
    result = Slowness()
    for _ in range(num_requests):
        result.record(ratio, 1000.0)
    return result


def peers(*ratios: float) -> dict[str, Slowness]:
    return {f"b{index}": slowness(ratio) for index, ratio in enumerate(ratios)}


def test_the_one_that_is_far_slower_is_found() -> None:
    assert slowest_outlier(peers(1.0, 1.2, 4.0), 0, CONFIG) == "b2"


def test_some_spread_is_normal() -> None:
    assert slowest_outlier(peers(1.0, 1.2, 3.0), 0, CONFIG) is None


def test_when_all_are_slow_nobody_is_out_of_line() -> None:
    assert slowest_outlier(peers(10.0, 11.0, 12.0), 0, CONFIG) is None


def test_of_two_nobody_can_say_which_is_the_odd_one() -> None:
    assert slowest_outlier(peers(1.0, 100.0), 0, CONFIG) is None


def test_no_more_than_a_part_is_ejected() -> None:
    assert slowest_outlier(peers(1.0, 1.0, 100.0), 1, CONFIG) is None
    assert slowest_outlier(peers(1.0, 1.0, 1.0, 1.0, 100.0), 1, CONFIG) == "b4"


def test_a_few_requests_are_not_enough_to_judge() -> None:
    judged = peers(1.0, 1.0, 1.0) | {"new": slowness(100.0, num_requests=4)}
    assert slowest_outlier(judged, 0, CONFIG) is None


def test_dear_requests_do_not_make_a_backend_slow() -> None:
    dear = Slowness()
    for _ in range(10):
        dear.record(10.0, 10_000.0)
    assert dear.value == 1.0
