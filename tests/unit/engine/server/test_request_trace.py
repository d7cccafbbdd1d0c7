"""The engine's span of a request."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from foveal.core.clock import ManualClock
from foveal.core.errors import ConfigurationError
from foveal.engine.server.app import create_app
from foveal.engine.server.config import ServerConfig
from foveal.observability.tracing.tracer import RequestTrace, SpanReport
from support.asgi_call import Answer, asgi_call
from support.fake_engine import FakeEngine

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@dataclass
class RecordingTracer:
    sampled: bool = True
    begun: list[bytes | None] = field(default_factory=list)
    reports: list[SpanReport] = field(default_factory=list)

    def begin(self, traceparent: bytes | None, start_s: float) -> RequestTrace:
        self.begun.append(traceparent)
        return RequestTrace(PARENT, object() if self.sampled else None)

    def end(self, trace: RequestTrace, report: SpanReport) -> None:
        self.reports.append(report)

    def close(self) -> None: ...


async def _ask(tracer: RecordingTracer, **body: object) -> Answer:
    app = create_app(FakeEngine(), ServerConfig(access_log=False), ManualClock(10.0), tracer=tracer)
    request = {"model": "fake-vlm", "messages": [{"role": "user", "content": "hello"}], **body}
    return await asgi_call(app, "POST", "/v1/chat/completions", request, headers={"traceparent": PARENT})


async def test_the_engine_continues_the_gateways_trace_with_its_stages() -> None:
    tracer = RecordingTracer()
    assert (await _ask(tracer)).status == 200
    assert tracer.begun == [PARENT.encode()]
    (report,) = tracer.reports
    assert report.name == "chat fake-vlm"
    assert [name for name, _, _ in report.stages] == ["preprocess", "queue", "encode", "prefill", "decode"]
    assert report.attributes["gen_ai.usage.output_tokens"] == 10
    assert report.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert report.error == ""


async def test_a_failed_request_is_a_span_with_its_error() -> None:
    tracer = RecordingTracer()
    assert (await _ask(tracer, model="other")).status == 404
    assert [report.error for report in tracer.reports] == ["model_not_found"]


async def test_a_request_that_is_not_sampled_leaves_no_span() -> None:
    tracer = RecordingTracer(sampled=False)
    assert (await _ask(tracer)).status == 200
    assert tracer.reports == []


def test_a_ratio_outside_its_range_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="trace_sample_ratio"):
        ServerConfig(trace_sample_ratio=2.0)
