"""What the gateway calls when a request begins and when it ends: metrics, trace and logs in one place."""

from __future__ import annotations

from foveal.observability.exchange_record import ExchangeRecord
from foveal.observability.gateway_metrics import GatewayMetrics
from foveal.observability.request_log import RequestLog
from foveal.observability.tracing.exchange_span import exchange_span
from foveal.observability.tracing.tracer import RequestTrace, Tracer
from foveal.observability.waterfall import Waterfall

__all__ = ["ExchangeObserver"]


class ExchangeObserver:
    def __init__(self, metrics: GatewayMetrics, log: RequestLog | None = None, tracer: Tracer | None = None) -> None:
        self._metrics = metrics
        self._log = log
        self._tracer = tracer

    def begin(self, record: ExchangeRecord, traceparent: bytes | None, start_s: float) -> RequestTrace | None:
        """Sets `record.traceparent` to what the backend shall get. None without tracing: pass the client's header on."""
        self._metrics.received()
        if self._tracer is None:
            return None
        trace = self._tracer.begin(traceparent, start_s)
        record.traceparent = trace.traceparent
        return trace

    def end(self, record: ExchangeRecord, waterfall: Waterfall, trace: RequestTrace | None) -> None:
        """Exactly once for each `begin`."""
        self._metrics.finished(record, waterfall)
        if self._log is not None and self._log.write(record, waterfall):
            self._metrics.count("slow_requests_total", record.model)
        if trace is not None and trace.span is not None and self._tracer is not None:
            self._tracer.end(trace, exchange_span(record, waterfall))
