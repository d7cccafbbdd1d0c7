"""Spans over OTLP/HTTP with the OpenTelemetry SDK, an optional dependency (`pip install foveal[tracing]`).

Spans are told with explicit times at the end of a request, so nothing is kept in context variables, and requests that are
not sampled never touch the SDK. Exporting happens in the SDK's own thread.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from foveal.core.errors import ConfigurationError
from foveal.observability.tracing.trace_context import new_trace, parse_traceparent
from foveal.observability.tracing.tracer import RequestTrace, SpanReport

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

__all__ = ["OtlpTracer"]

_NS = 1_000_000_000


class OtlpTracer:
    """Implements Tracer."""

    def __init__(
        self,
        endpoint: str,
        service_name: str,
        sample_ratio: float = 1.0,
        *,
        now_s: Callable[[], float] = time.monotonic,
        processor: SpanProcessor | None = None,
        draw: random.Random | None = None,
    ) -> None:
        """`endpoint` is the full URL, http://localhost:4318/v1/traces. `now_s` is the clock of all times given later.

        `sample_ratio` is for requests whose client has not decided. Raises ConfigurationError without the SDK.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ALWAYS_ON
        except ImportError as error:
            raise ConfigurationError(
                f"tracing to {endpoint} needs the OpenTelemetry SDK, which is not installed ({error}); "
                "pip install 'foveal[tracing]', or leave the endpoint out"
            ) from error
        if not 0 <= sample_ratio <= 1:
            raise ConfigurationError(f"the sample ratio is {sample_ratio}; it must be between 0 and 1")
        self._epoch_ns = time.time_ns() - int(now_s() * _NS)
        """One anchor for all spans: lengths and order are exact, and a wall clock set later does not tear a trace."""
        self._ratio = sample_ratio
        self._draw = draw or random.Random()
        # The decision is made before the SDK is asked, so that it costs nothing where it is no.
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=Resource.create({"service.name": service_name}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(processor or BatchSpanProcessor(OTLPSpanExporter(endpoint)))
        self._tracer = self._provider.get_tracer("foveal")

    def begin(self, traceparent: bytes | None, start_s: float) -> RequestTrace:
        from opentelemetry import context as contexts
        from opentelemetry import trace

        parent = parse_traceparent(traceparent)
        context = parent or new_trace(self._ratio, self._draw)
        if not context.sampled:
            return RequestTrace(context.header())
        if parent is None:
            outside = contexts.Context()  # a root: the SDK draws its own ids
        else:
            remote = trace.SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=trace.TraceFlags(1))
            outside = trace.set_span_in_context(trace.NonRecordingSpan(remote), contexts.Context())
        span = self._tracer.start_span(
            "request", context=outside, kind=trace.SpanKind.SERVER, start_time=self._wall_ns(start_s)
        )
        own = span.get_span_context()
        return RequestTrace(f"00-{own.trace_id:032x}-{own.span_id:016x}-01", span)

    def end(self, trace: RequestTrace, report: SpanReport) -> None:
        from opentelemetry.context import Context
        from opentelemetry.trace import Span, Status, StatusCode, set_span_in_context

        span = trace.span
        assert isinstance(span, Span)
        span.update_name(report.name)
        span.set_attributes(dict(report.attributes))
        if report.error:
            span.set_attribute("error.type", report.error)
            span.set_status(Status(StatusCode.ERROR, report.error))
        inside = set_span_in_context(span, Context())
        for name, begin_s, end_s in report.stages:
            child = self._tracer.start_span(name, context=inside, start_time=self._wall_ns(begin_s))
            child.end(self._wall_ns(end_s))
        span.end(self._wall_ns(report.end_s))

    def close(self) -> None:
        self._provider.shutdown()

    def _wall_ns(self, at_s: float) -> int:
        return self._epoch_ns + int(at_s * _NS)
