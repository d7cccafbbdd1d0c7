"""The traceparent header, by the rules of W3C Trace Context."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.observability.tracing.trace_context import TraceContext, new_trace, parse_traceparent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


@given(st.integers(1, (1 << 128) - 1), st.integers(1, (1 << 64) - 1), st.booleans())
def test_a_written_header_reads_back(trace_id: int, span_id: int, sampled: bool) -> None:
    context = TraceContext(trace_id, span_id, sampled)
    assert parse_traceparent(context.header()) == context
    assert parse_traceparent(context.header().encode()) == context


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "garbage",
        f"00-{TRACE}-{SPAN}",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE[:-1]}-{SPAN}-01",
    ],
)
def test_a_header_that_breaks_the_rules_is_no_header(header: str | None) -> None:
    assert parse_traceparent(header) is None


def test_a_later_version_may_say_more() -> None:
    context = parse_traceparent(f"01-{TRACE}-{SPAN}-03-more")
    assert context == TraceContext(int(TRACE, 16), int(SPAN, 16), True)


@given(st.binary(max_size=80))
def test_no_header_makes_it_raise(header: bytes) -> None:
    parse_traceparent(header)


@pytest.mark.parametrize(("ratio", "expected"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)])
def test_the_sample_ratio_holds(ratio: float, expected: float) -> None:
    draw = random.Random(7)
    sampled = sum(new_trace(ratio, draw).sampled for _ in range(4000)) / 4000
    assert sampled == pytest.approx(expected, abs=0.03)
