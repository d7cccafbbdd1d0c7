"""A generation request as a span: it continues the gateway's trace, and its stages are children."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import Scope

from foveal.engine.server.config import ServerConfig
from foveal.engine.server.context import ServerContext
from foveal.engine.server.recorder import RequestTimer
from foveal.observability.tracing.otlp import OtlpTracer
from foveal.observability.tracing.tracer import AttributeValue, SpanReport, Tracer
from foveal.protocol.error_body import to_error_body

__all__ = ["make_tracer", "traced"]


def make_tracer(config: ServerConfig) -> Tracer | None:
    """None without an endpoint. Raises ConfigurationError if the OpenTelemetry SDK is not installed."""
    if config.otlp_endpoint is None:
        return None
    return OtlpTracer(config.otlp_endpoint, "foveal-engine", config.trace_sample_ratio)


@contextmanager
def traced(context: ServerContext, scope: Scope, timer: RequestTimer) -> Iterator[None]:
    """Report the block as one span, whatever its end. Free of cost for a request that is not sampled."""
    tracer = context.tracer
    if tracer is None:
        yield
        return
    header = next((value for name, value in scope["headers"] if name == b"traceparent"), None)
    trace = tracer.begin(header, timer.arrival_s)
    if trace.span is None:
        yield
        return
    error = ""
    try:
        yield
    except BaseException as raised:
        error = (to_error_body(raised).error.code or "error") if isinstance(raised, Exception) else "aborted"
        raise
    finally:
        tracer.end(trace, _report(context, scope, timer, error))


def _report(context: ServerContext, scope: Scope, timer: RequestTimer, error: str) -> SpanReport:
    operation = "chat" if "chat" in scope["path"] else "text_completion"
    model = context.metrics.model_name
    attributes: dict[str, AttributeValue] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "foveal",
        "gen_ai.response.model": model,
        "gen_ai.usage.input_tokens": sum(output.usage.prompt_tokens for output in timer.outputs),
        "gen_ai.usage.output_tokens": sum(output.usage.completion_tokens for output in timer.outputs),
        "gen_ai.usage.cache_read.input_tokens": sum(output.usage.cached_tokens for output in timer.outputs),
        "gen_ai.response.finish_reasons": tuple(timer.finish_reasons),
        "foveal.image_tokens": sum(output.usage.image_tokens for output in timer.outputs),
        "url.path": scope["path"],
    }
    end_s = context.clock.now_s()
    return SpanReport(f"{operation} {model}", timer.arrival_s, end_s, attributes, _stages(timer, end_s), error)


def _stages(timer: RequestTimer, end_s: float) -> list[tuple[str, float, float]]:
    """Laid end to end from their lengths; `encode` runs within prefill. With several prompts, those of the first to end."""
    stages: list[tuple[str, float, float]] = []
    at_s = timer.arrival_s
    if timer.fetch_s is not None:
        stages.append(("fetch", at_s, at_s := at_s + timer.fetch_s))
    if timer.outputs:
        metrics = timer.outputs[0].metrics
        stages.append(("preprocess", at_s, at_s := at_s + metrics.preprocess_s))
        stages.append(("queue", at_s, at_s := at_s + metrics.queue_s))
        if metrics.encode_s:
            stages.append(("encode", at_s, at_s + metrics.encode_s))
        stages.append(("prefill", at_s, at_s + metrics.prefill_s))
    if timer.first_s is not None:
        stages.append(("decode", timer.first_s, end_s))
    return stages
