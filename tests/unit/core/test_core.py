"""Sampling parameters, priorities, clock, error tree."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.core import errors
from foveal.core.clock import ManualClock
from foveal.core.errors import FovealError, InvalidRequestError, RequestError
from foveal.core.priority import Priority, effective_priority, is_urgent
from foveal.core.sampling_params import GuidedDecoding, SamplingParams


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 0),
        ("n", 17),
        ("max_tokens", 0),
        ("max_tokens", True),
        ("min_tokens", -1),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", "hot"),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -2),
        ("min_p", 1.5),
        ("repetition_penalty", 0.0),
        ("presence_penalty", 2.5),
        ("frequency_penalty", -3),
        ("seed", 2**63),
        ("logprobs", 21),
        ("stop", ("",)),
        ("stop", ("a",) * 17),
    ],
)
def test_a_sampling_value_out_of_range_names_its_field(field: str, value: object) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        SamplingParams(**{field: value})  # type: ignore[arg-type]
    assert caught.value.param == field
    assert field in str(caught.value)


def test_min_tokens_above_max_tokens_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="above max_tokens"):
        SamplingParams(max_tokens=3, min_tokens=4)


def test_vllm_spelling_of_no_top_k_is_accepted() -> None:
    assert SamplingParams(top_k=-1).top_k == 0


def test_a_single_stop_string_is_one_stop_string() -> None:
    assert SamplingParams(stop="END").stop == ("END",)  # type: ignore[arg-type]


def test_guided_decoding_needs_exactly_one_constraint() -> None:
    for arguments in ({}, {"json_schema": {}, "regex": "a"}):
        with pytest.raises(InvalidRequestError):
            GuidedDecoding(**arguments)  # type: ignore[arg-type]


@given(st.floats(0, 1e4), st.floats(0, 1e4))
def test_waiting_longer_never_lowers_a_request_in_the_queue(first_s: float, more_s: float) -> None:
    for priority in Priority:
        assert effective_priority(priority, first_s + more_s) <= effective_priority(priority, first_s)


def test_an_old_p2_overtakes_a_fresh_p0() -> None:
    assert effective_priority(Priority.P2, 31.0) < effective_priority(Priority.P0, 0.0)


@pytest.mark.parametrize(("priority", "urgent_at_s"), [(Priority.P0, 0.08), (Priority.P1, 0.4), (Priority.P2, 1.6)])
def test_a_request_is_urgent_at_80_percent_of_its_deadline(priority: Priority, urgent_at_s: float) -> None:
    assert not is_urgent(priority, urgent_at_s - 0.001)
    assert is_urgent(priority, urgent_at_s + 1e-9)


def test_the_manual_clock_refuses_to_go_back() -> None:
    clock = ManualClock(5.0)
    clock.advance(1.5)
    assert clock.now_s() == 6.5
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-1)


def test_every_error_is_drawn_in_the_tree_and_derives_from_the_root() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__]
    assert {c.__name__ for c in classes} == set(errors.__all__)
    for cls in classes:
        assert issubclass(cls, FovealError)
        assert cls.__name__ in (errors.__doc__ or "")
        if issubclass(cls, RequestError):
            assert 400 <= cls.status < 600
