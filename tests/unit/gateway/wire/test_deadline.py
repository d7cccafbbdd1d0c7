from __future__ import annotations

from typing import cast

import pytest

from foveal.gateway.wire.deadline import Deadline
from support.manual_loop import ManualLoop


@pytest.fixture
def fired() -> list[float]:
    return []


@pytest.fixture
def loop() -> ManualLoop:
    return ManualLoop()


@pytest.fixture
def deadline(loop: ManualLoop, fired: list[float]) -> Deadline:
    return Deadline(cast("object", loop), lambda: fired.append(loop.time()))  # type: ignore[arg-type]


def test_it_fires_once_at_its_time(loop: ManualLoop, deadline: Deadline, fired: list[float]) -> None:
    deadline.after(5)
    loop.advance(4.9)
    assert fired == []
    loop.advance(10)
    assert fired == [5]


def test_a_later_time_replaces_an_earlier_one(loop: ManualLoop, deadline: Deadline, fired: list[float]) -> None:
    deadline.after(5)
    loop.advance(3)
    deadline.after(5)
    loop.advance(100)
    assert fired == [8]


def test_an_earlier_time_replaces_a_later_one(loop: ManualLoop, deadline: Deadline, fired: list[float]) -> None:
    deadline.after(50)
    deadline.after(1)
    loop.advance(100)
    assert fired == [1]


def test_a_cleared_one_stays_silent_and_can_be_set_again(
    loop: ManualLoop, deadline: Deadline, fired: list[float]
) -> None:
    deadline.after(5)
    deadline.clear()
    loop.advance(100)
    assert fired == []
    deadline.after(5)
    loop.advance(5)
    assert fired == [105]


def test_a_thousand_settings_take_one_timer(loop: ManualLoop, deadline: Deadline) -> None:
    for _ in range(1000):
        deadline.after(5)
        loop.advance(0.001)
    assert len(loop.timers) == 1
