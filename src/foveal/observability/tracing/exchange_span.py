"""A request through the gateway as a span, by OpenTelemetry's names for generative AI and HTTP.

Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans
"""

from __future__ import annotations

from foveal.observability.exchange_record import ExchangeRecord
from foveal.observability.tracing.tracer import AttributeValue, SpanReport
from foveal.observability.waterfall import Waterfall

__all__ = ["exchange_span"]


def exchange_span(record: ExchangeRecord, waterfall: Waterfall) -> SpanReport:
    """Stages become children. Never holds text, images or keys."""
    operation = "text_completion" if record.path.endswith("/completions") and "chat" not in record.path else "chat"
    attributes: dict[str, AttributeValue] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "foveal",
        "gen_ai.request.model": record.model,
        "gen_ai.response.model": record.served_model or record.model,
        "gen_ai.request.stream": record.stream,
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.output_tokens": record.completion_tokens,
        "gen_ai.response.finish_reasons": record.finish_reasons,
        "http.request.method": "POST",
        "http.response.status_code": record.status,
        "url.path": record.path,
        "foveal.request_id": record.request_id,
        "foveal.tenant": record.tenant,
        "foveal.priority": record.priority.name,
        "foveal.outcome": record.outcome,
        "foveal.backend": record.backend,
        "foveal.attempts": record.attempts,
        "foveal.images": record.num_images,
        "foveal.vision_tokens": record.vision_tokens,
        "foveal.cost_ms": record.cost_ms,
        "foveal.cache": record.cache,
    }
    first_byte_s = waterfall.first_byte_s
    if first_byte_s is not None and record.stream:
        attributes["gen_ai.response.time_to_first_chunk"] = first_byte_s - waterfall.body_done_s
    return SpanReport(
        name=f"{operation} {record.model}".rstrip(),
        start_s=waterfall.start_s,
        end_s=waterfall.last_s,
        attributes={name: value for name, value in attributes.items() if value not in ("", (), 0) or value is False},
        stages=waterfall.spans,
        error="" if record.outcome == "success" else record.code or record.outcome,
    )
