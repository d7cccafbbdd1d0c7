"""Every metric of the gateway, as data.

Labels come from small fixed sets: models and backends of the configuration, tenants up to a cap (`other` beyond it).
"""

from __future__ import annotations

from foveal.observability.buckets import (
    BODY_BYTES,
    GATEWAY_STAGE_S,
    LATENCY_S,
    PER_TOKEN_S,
    PRICE_RATIO,
    TOKENS,
)
from foveal.observability.metric_spec import MetricSpec

__all__ = ["GATEWAY_CATALOGUE"]


def _counter(name: str, text: str, *labels: str, unit: str = "") -> MetricSpec:
    return MetricSpec(f"foveal_gateway_{name}", "counter", text, unit, labels, component="gateway")


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str, unit: str = "seconds") -> MetricSpec:
    return MetricSpec(f"foveal_gateway_{name}", "histogram", text, unit, labels, buckets, component="gateway")


def _gauge(name: str, text: str, *labels: str, unit: str = "") -> MetricSpec:
    return MetricSpec(f"foveal_gateway_{name}", "gauge", text, unit, labels, component="gateway", source="snapshot")


GATEWAY_CATALOGUE: tuple[MetricSpec, ...] = (
    # What came, and how it ended.
    _counter("requests_received_total", "Generation requests whose head was read: ended ones plus those in flight."),
    _counter(
        "requests_total",
        "Generation requests that ended, each in exactly one outcome: success, client_error (4xx), limited (429), "
        "shed (503 by the gateway), timeout, error, aborted (the client left).",
        *("model_name", "tenant", "priority", "outcome"),
    ),
    _counter("errors_total", "Requests that did not end in success, by error code.", "model_name", "code"),
    _histogram(
        "time_to_first_token_seconds",
        "Streams: from the complete body to the first byte of the answer's body.",
        LATENCY_S,
        *("model_name", "priority"),
    ),
    _histogram(
        "request_time_per_output_token_seconds",
        "Streams: mean time per output token after the first (TPOT).",
        PER_TOKEN_S,
        "model_name",
    ),
    _histogram(
        "e2e_request_latency_seconds",
        "Successful requests: from the complete body to the last byte.",
        LATENCY_S,
        *("model_name", "priority"),
    ),
    _histogram(
        "request_queue_time_seconds",
        "Waiting in the gateway for a backend with room; 0 for requests that found one at once.",
        LATENCY_S,
        *("model_name", "priority"),
    ),
    _histogram("stage_seconds", "One stage of the waterfall.", GATEWAY_STAGE_S, "stage"),
    _histogram(
        "overhead_seconds",
        "The gateway's own work on a request: all stages but read, fetch, queue, backend and stream.",
        GATEWAY_STAGE_S,
    ),
    _counter("slow_requests_total", "Requests over the slow log's limit.", "model_name"),
    # What it was made of.
    _counter("prompt_tokens_total", "Prompt tokens, from the backends' usage.", "model_name", "tenant", unit="tokens"),
    _counter("generation_tokens_total", "Generated tokens.", "model_name", "tenant", unit="tokens"),
    _counter("vision_tokens_total", "Vision tokens, as priced.", "model_name", "tenant", unit="tokens"),
    _counter("vision_seconds_total", "Vision encoder time, as priced.", "model_name", "tenant", unit="seconds"),
    _counter(
        "cost_seconds_total",
        "Price of requests: time of an otherwise idle backend. Over the number of requests it is cost per request.",
        *("model_name", "tenant"),
        unit="seconds",
    ),
    _histogram("request_prompt_tokens", "Prompt tokens per request.", TOKENS, "model_name", unit="tokens"),
    _histogram("request_generation_tokens", "Generated tokens per request.", TOKENS, "model_name", unit="tokens"),
    _counter("images_total", "Images in requests.", "model_name", unit="images"),
    _histogram("body_bytes", "Size of request bodies.", BODY_BYTES, unit="bytes"),
    _histogram(
        "price_ratio",
        "Prompt tokens as priced over those the backend counted.",
        PRICE_RATIO,
        "model_name",
        unit="ratio",
    ),
    _counter(
        "choices_finished_total",
        "Choices finished, by reason; length means truncated.",
        *("model_name", "finished_reason"),
    ),
    # What the gateway did about it.
    _counter(
        "shed_total",
        "Requests refused to protect others: queue_full, deadline, bytes, connections, draining, no_backend.",
        *("priority", "reason"),
    ),
    _counter(
        "limited_total", "Requests over a tenant's limit: requests, tokens, vision, concurrency.", "tenant", "limit"
    ),
    _counter("auth_failures_total", "Requests with a missing, wrong or revoked key."),
    _counter("retries_total", "Attempts after a failed one, by the backend that failed.", "backend", "stage"),
    _counter("retries_refused_total", "Retries that the budget did not allow."),
    _counter("hedges_total", "Second attempts sent because the first was slow: won or lost.", "result"),
    _counter(
        "fallbacks_total",
        "Requests answered by the fallback model: open (primary out of service) or late (queue past its deadline).",
        *("model_name", "reason"),
    ),
    _counter("smart_routed_total", "Simple requests sent to a smaller model by rule.", "model_name"),
    _counter(
        "cache_requests_total",
        "Deterministic requests: hit, miss, or joined to an identical one in flight.",
        *("model_name", "result"),
    ),
    _counter("image_fetches_total", "Remote images: fetched, cached, refused (address rules), failed.", "result"),
    _counter(
        "backend_requests_total",
        "Attempts by how they ended: ok, client_error, server_error, connect, send, first_byte, body, protocol, "
        "cancelled.",
        *("backend", "result"),
    ),
    _histogram(
        "backend_first_byte_seconds",
        "From the request's last byte to the first body byte of a backend's answer.",
        LATENCY_S,
        "backend",
    ),
    _counter(
        "backend_ejections_total",
        "Times a backend left the rotation: its checks or its requests failed, or it was far slower than its peers.",
        "backend",
    ),
    _counter("feedback_total", "Judgements of users on answers: up or down.", "model_name", "rating"),
    _counter("config_reloads_total", "Reloads of the configuration: ok or refused.", "result"),
    # What is now.
    _gauge("requests_in_flight", "Generation requests between head and last byte."),
    _gauge("body_bytes_in_flight", "Body bytes held for them.", unit="bytes"),
    _gauge("body_bytes_limit", "Most body bytes that may be held.", unit="bytes"),
    _gauge("queue_length", "Requests waiting.", "priority"),
    _gauge("queue_cost_seconds", "Sum of the prices of what waits.", "priority", unit="seconds"),
    _gauge("active_tenants", "Tenants with a request in the last five minutes."),
    _gauge("backend_up", "1 in rotation (returning included), 0 out of it.", "backend"),
    _gauge("backend_in_flight", "Requests at a backend.", "backend"),
    _gauge("backend_max_in_flight", "Most requests that a backend gets at a time.", "backend"),
    _gauge("backend_outstanding_seconds", "Sum of the prices of what is at a backend.", "backend", unit="seconds"),
    _gauge(
        "backend_share",
        "Fraction of its capacity a backend may use: below 1 while it returns.",
        "backend",
        unit="ratio",
    ),
    _gauge("cache_bytes", "Size of the response cache.", "layer", unit="bytes"),
    _gauge("cache_entries", "Answers in the response cache.", "layer"),
    _gauge("draining", "1 between the signal to stop and the end."),
)
