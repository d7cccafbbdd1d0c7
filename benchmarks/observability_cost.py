"""What watching costs a request through the gateway: processor time per request, beside the usual libraries'.

python benchmarks/observability_cost.py
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from harness.record import write_result
from prometheus_client import CollectorRegistry, Counter, Histogram

from foveal.observability.buckets import LATENCY_S
from foveal.observability.exchange_record import ExchangeRecord
from foveal.observability.gateway_metrics import GatewayMetrics
from foveal.observability.gateway_snapshot import GatewaySnapshot
from foveal.observability.logs import configure_logging, get_logger
from foveal.observability.request_log import RequestLog
from foveal.observability.waterfall import Stage, Waterfall

BEFORE: tuple[Stage, ...] = ("read", "auth", "parse", "price", "limit", "queue", "route", "backend")
REPEATS, CALLS = 20, 2000


def record() -> ExchangeRecord:
    answered = ExchangeRecord(
        "req-1", "/v1/chat/completions", "m", tenant="t", backend="b", outcome="success", stream=True
    )
    answered.status, answered.body_bytes, answered.attempts = 200, 1000, 1
    answered.num_images, answered.vision_tokens, answered.vision_ms, answered.cost_ms = 1, 256, 20.0, 100.0
    answered.prompt_tokens, answered.completion_tokens, answered.priced_prompt_tokens = 300, 20, 301
    answered.finish_reasons = ("stop",)
    return answered


def waterfall() -> Waterfall:
    made = Waterfall(time.monotonic)
    for stage in BEFORE:
        made.mark(stage)
    return made


def microseconds(call: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        began = time.thread_time()
        for _ in range(CALLS):
            call()
        best = min(best, (time.thread_time() - began) / CALLS)
    return round(1e6 * best, 2)


def main() -> None:
    metrics = GatewayMetrics(GatewaySnapshot, time.monotonic)
    registry = CollectorRegistry()
    histogram = Histogram("h", "h", ["a", "b"], registry=registry, buckets=LATENCY_S)
    bound, counter = histogram.labels("x", "y"), Counter("c", "c", ["a"], registry=registry).labels("x")
    one, course = record(), waterfall()
    course.mark("stream")
    course.mark("finish")
    with open(os.devnull, "w") as nowhere:
        log = RequestLog(nowhere, wall_time_s=time.time)
        configure_logging("info", "json", nowhere)
        structured = get_logger("x")
        fields = {
            "request_id": "req-1",
            "path": "/v1",
            "status": 200,
            "outcome": "success",
            "model": "m",
            "tenant": "t",
        }
        figures = {
            "record, waterfall of ten stages": microseconds(lambda: (record(), waterfall())),
            "Server-Timing": microseconds(course.server_timing),
            "metrics of a request (25 updates)": microseconds(lambda: metrics.finished(one, course)),
            "request log line": microseconds(lambda: log.write(one, course)),
            "one update: prometheus_client histogram, bound": microseconds(lambda: bound.observe(0.2)),
            "one update: prometheus_client histogram by labels": microseconds(
                lambda: histogram.labels("x", "y").observe(0.2)
            ),
            "one update: prometheus_client counter, bound": microseconds(counter.inc),
            "one line: structlog": microseconds(lambda: structured.info("request", **fields)),
        }
    for name, value in figures.items():
        print(f"{name:52} {value:7.2f} us")
    print("written to", write_result("observability_cost", {"microseconds": figures}))


if __name__ == "__main__":
    main()
