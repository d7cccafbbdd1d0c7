"""Spans as the OpenTelemetry SDK would export them."""

from __future__ import annotations

import random

import pytest

from foveal.core.clock import ManualClock
from foveal.core.errors import ConfigurationError
from foveal.observability.exchange_observer import ExchangeObserver
from foveal.observability.exchange_record import ExchangeRecord
from foveal.observability.gateway_metrics import GatewayMetrics
from foveal.observability.gateway_snapshot import GatewaySnapshot
from foveal.observability.tracing.otlp import OtlpTracer
from foveal.observability.tracing.tracer import SpanReport
from foveal.observability.waterfall import Waterfall

pytest.importorskip("opentelemetry.sdk")
import itertools

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{SPAN}-01".encode()
NOT_SAMPLED = f"00-{TRACE}-{SPAN}-00".encode()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def _tracer(clock: ManualClock, exporter: InMemorySpanExporter, ratio: float = 1.0) -> OtlpTracer:
    processor = SimpleSpanProcessor(exporter)
    return OtlpTracer("http://x/v1/traces", "gw", ratio, now_s=clock.now_s, processor=processor, draw=random.Random(1))


def test_a_clients_trace_goes_on_to_the_backend(clock: ManualClock, exporter: InMemorySpanExporter) -> None:
    tracer = _tracer(clock, exporter, ratio=0.0)
    trace = tracer.begin(SAMPLED, clock.now_s())
    tracer.end(trace, SpanReport("chat m", 1000.0, 1001.0, {}))
    (span,) = exporter.get_finished_spans()
    assert trace.trace_id == TRACE
    assert format(span.parent.span_id, "016x") == SPAN
    assert trace.traceparent == f"00-{TRACE}-{span.context.span_id:016x}-01"


def test_a_request_that_is_not_sampled_costs_no_span_and_says_so_downstream(
    clock: ManualClock, exporter: InMemorySpanExporter
) -> None:
    tracer = _tracer(clock, exporter, ratio=0.0)
    assert tracer.begin(NOT_SAMPLED, clock.now_s()).traceparent == NOT_SAMPLED.decode()
    fresh = tracer.begin(None, clock.now_s())
    assert fresh.span is None
    assert fresh.traceparent.endswith("-00")


def test_the_stages_of_a_request_are_children_that_cover_it(clock: ManualClock, exporter: InMemorySpanExporter) -> None:
    tracer = _tracer(clock, exporter)
    observer = ExchangeObserver(GatewayMetrics(GatewaySnapshot, clock.now_s), tracer=tracer)
    record = ExchangeRecord(
        "r1", "/v1/chat/completions", "m", tenant="t", backend="b", status=200, outcome="success", stream=True
    )
    record.prompt_tokens, record.completion_tokens, record.finish_reasons = 20, 5, ("stop",)
    waterfall = Waterfall(clock.now_s)
    trace = observer.begin(record, None, clock.now_s())
    for stage in ("read", "queue", "backend", "stream"):
        clock.advance(0.25)
        waterfall.mark(stage)  # type: ignore[arg-type]
    observer.end(record, waterfall, trace)
    *children, root = exporter.get_finished_spans()
    assert root.name == "chat m"
    assert root.end_time - root.start_time == 1_000_000_000
    assert [child.name for child in children] == ["read", "queue", "backend", "stream"]
    assert {child.parent.span_id for child in children} == {root.context.span_id}
    assert children[0].start_time == root.start_time
    assert all(a.end_time == b.start_time for a, b in itertools.pairwise(children))
    assert root.attributes["gen_ai.usage.input_tokens"] == 20
    assert root.attributes["gen_ai.response.time_to_first_chunk"] == pytest.approx(0.5)
    assert record.traceparent[3:35] == format(root.context.trace_id, "032x")


def test_an_error_marks_the_span(clock: ManualClock, exporter: InMemorySpanExporter) -> None:
    tracer = _tracer(clock, exporter)
    tracer.end(tracer.begin(None, clock.now_s()), SpanReport("chat", 1000.0, 1000.1, {}, error="timeout"))
    (span,) = exporter.get_finished_spans()
    assert span.attributes["error.type"] == "timeout"
    assert not span.status.is_ok


def test_a_ratio_outside_its_range_is_an_error(clock: ManualClock, exporter: InMemorySpanExporter) -> None:
    with pytest.raises(ConfigurationError, match="sample ratio"):
        _tracer(clock, exporter, ratio=1.5)
