"""Plots put things where the numbers say."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.evaluation.evaluation_result import Evaluation, MeasuredModel, TaskResult
from foveal.evaluation.metrics.wilson import wilson_interval
from foveal.evaluation.report.content import mean_accuracy
from foveal.evaluation.report.front_plot import FrontPoint, draw_front, front
from foveal.evaluation.report.sqnr_plot import draw_sqnr
from foveal.evaluation.report.svg import Axis, element, nice_ticks
from foveal.evaluation.report.task_plot import draw_tasks
from unit.evaluation.report.sample_report import make_linears

_finite = st.floats(-1e9, 1e9, allow_nan=False)


@given(low=_finite, span=st.floats(1e-6, 1e9))
def test_ticks_cover_the_range_evenly(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    assert ticks[0] <= low + 1e-6 * span + 1e-9 * abs(low)
    assert ticks[-1] >= low + span - 1e-6 * span - 1e-9 * abs(low)
    assert 3 <= len(ticks) <= 14


def test_one_value_alone_gets_an_axis_around_it() -> None:
    axis = Axis.over([5.0], 0, 100)
    assert axis.ticks[0] < 5.0 < axis.ticks[-1]


@pytest.mark.parametrize(
    ("values", "labels"),
    [((0, 10), ["0", "2", "4", "6", "8", "10"]), ((0, 1.2), ["0.00", "0.25", "0.50", "0.75", "1.00", "1.25"])],
)
def test_tick_labels_have_the_digits_they_need(values: tuple[float, float], labels: list[str]) -> None:
    axis = Axis.over(values, 0, 100)
    assert [axis.label(tick) for tick in axis.ticks] == labels


@given(
    points=st.lists(st.tuples(st.integers(1, 100), st.integers(0, 100)), min_size=1, max_size=20),
    higher=st.booleans(),
)
def test_nothing_beats_a_point_of_the_front_and_something_matches_every_other(
    points: list[tuple[int, int]], higher: bool
) -> None:
    sign = 1 if higher else -1
    given_points = [FrontPoint(str(i), size, quality) for i, (size, quality) in enumerate(points)]
    best = front(given_points, higher_is_better=higher)
    for a, b in pairwise(best):
        assert a.size_bytes < b.size_bytes
        assert sign * a.quality < sign * b.quality
    for point in given_points:
        assert any(b.size_bytes <= point.size_bytes and sign * b.quality >= sign * point.quality for b in best)


def test_names_of_candidates_close_together_do_not_cover_each_other() -> None:
    points = [FrontPoint(f"candidate-{i}", 120e6 + i * 1e6, 80 + 0.1 * i) for i in range(4)]
    points.append(FrontPoint("base", 314e6, 81.0, standing="base"))
    drawn = ET.fromstring(draw_front(points, title="T", unit="%", higher_is_better=True))
    names = [e for e in drawn.iter("text") if e.get("class") == "name"]
    boxes = [(float(e.get("x", 0)), float(e.get("y", 0)), len(e.text or "") * 6.4) for e in names]
    for i, (x, y, width) in enumerate(boxes):
        for other_x, other_y, other_width in boxes[:i]:
            assert abs(y - other_y) >= 12 or x >= other_x + other_width or other_x >= x + width


def test_the_better_candidate_is_drawn_higher() -> None:
    points = [FrontPoint("a", 1e6, 50), FrontPoint("b", 2e6, 90)]
    drawn = ET.fromstring(draw_front(points, title="T", unit="%", higher_is_better=True))
    heights = [float(circle.get("cy", 0)) for circle in drawn.iter("circle")]
    assert heights[1] < heights[0]


def test_every_quantised_layer_gets_a_dot() -> None:
    linears = make_linears()
    drawn = ET.fromstring(draw_sqnr(linears) or "")
    dots = [group for group in drawn.iter("g") if group.find("circle") is not None]
    assert len(dots) == sum(entry.quantised for entry in linears.values())
    assert draw_sqnr({"head": linears["lm_head"]}) is None


def test_bars_are_as_long_as_the_accuracy_and_the_change_is_signed() -> None:
    base = _evaluation({"count": (True,) * 80 + (False,) * 20, "only base": (True,)})
    candidate = _evaluation({"count": (True,) * 40 + (False,) * 60})
    drawn = ET.fromstring(draw_tasks(base, candidate) or "")
    bars = {group.findtext("title"): group.find("rect") for group in drawn.iter("g")}
    before, after = bars["count, base: 80.0 % of 100"], bars["count, candidate: 40.0 % of 100"]
    assert before is not None
    assert after is not None
    assert float(before.get("width", 0)) == pytest.approx(2 * float(after.get("width", 0)), abs=0.02)
    texts = [e.text or "" for e in drawn.iter("text")]
    assert any(t.startswith("−40.0") for t in texts)
    assert "only one was asked" in texts
    assert draw_tasks(_evaluation({}), _evaluation({})) is None


def test_the_mean_counts_tasks_alike() -> None:
    found = mean_accuracy(_evaluation({"a": (True,) * 90 + (False,) * 10, "b": (False,) * 10}))
    assert found is not None
    assert found.estimate == pytest.approx(0.45)
    assert found.low < 0.45 < found.high


def test_wilson_is_the_textbook_interval() -> None:
    """Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to 0.1611."""
    found = wilson_interval(81, 263)
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    none = wilson_interval(0, 20)
    assert (none.low, none.high) == pytest.approx((0.0, 0.1611), abs=5e-5)
    with pytest.raises(ValueError, match="at least one item"):
        wilson_interval(0, 0)


def test_texts_and_attributes_are_escaped() -> None:
    assert element("text", "<b>", class_='"x') == '<text class="&#34;x">&lt;b&gt;</text>'


def _evaluation(tasks: dict[str, tuple[bool, ...]]) -> Evaluation:
    return Evaluation(
        model=MeasuredModel(name="m", digest="d"),
        suite="s",
        tasks={name: TaskResult(per_item=items) for name, items in tasks.items()},
    )
