"""The gateway at a glance: what users feel, where the time goes, what the queue and the backends do, what it costs."""

from __future__ import annotations

from foveal.observability.dashboards.panel import Dashboard, Panel, Query, Row
from foveal.observability.dashboards.queries import MODEL, RATE, quantiles, rate_by

__all__ = ["GATEWAY_DASHBOARD"]

G = "foveal_gateway_"

_USERS = Row(
    "What users feel",
    (
        Panel("Requests by outcome", "reqps", (rate_by(f"{G}requests_total", "outcome", MODEL),), stacked=True),
        Panel("Time to first token", "s", quantiles(f"{G}time_to_first_token_seconds", MODEL)),
        Panel("Time per output token", "s", quantiles(f"{G}request_time_per_output_token_seconds", MODEL)),
        Panel("End to end", "s", quantiles(f"{G}e2e_request_latency_seconds", MODEL)),
        Panel(
            "Errors and time-outs",
            "percentunit",
            (
                Query(
                    f'sum by (model_name) (rate({G}requests_total{{{MODEL}, outcome=~"error|timeout"}}{RATE})) '
                    f"/ sum by (model_name) (rate({G}requests_total{{{MODEL}}}{RATE}))",
                    "{{model_name}}",
                ),
            ),
            "Of all requests; the alert HighErrorRate watches it.",
        ),
        Panel("Errors by code", "reqps", (rate_by(f"{G}errors_total", "code", MODEL),), stacked=True),
    ),
)

_TIME = Row(
    "Where the time goes",
    (
        Panel(
            "Waterfall: mean seconds per request",
            "s",
            (
                Query(
                    f"sum by (stage) (rate({G}stage_seconds_sum{RATE})) / scalar(sum(rate({G}requests_total{RATE})))",
                    "{{stage}}",
                ),
            ),
            "Stacked, the stages are the mean time of a request.",
            stacked=True,
            width=12,
        ),
        Panel("The gateway's own work", "s", quantiles(f"{G}overhead_seconds"), width=6),
        Panel("Backends: first byte", "s", quantiles(f"{G}backend_first_byte_seconds", by="backend")[1:2], width=6),
    ),
)

_QUEUE = Row(
    "Queue and admission",
    (
        Panel("Waiting", "short", (Query(f"sum by (priority) ({G}queue_length)", "{{priority}}"),), stacked=True),
        Panel("Queue time, P95", "s", quantiles(f"{G}request_queue_time_seconds", MODEL, "priority")[1:2]),
        Panel(
            "P0 within 100 ms",
            "percentunit",
            (
                Query(
                    f'sum(rate({G}request_queue_time_seconds_bucket{{priority="P0", le="0.1"}}{RATE})) '
                    f'/ sum(rate({G}request_queue_time_seconds_count{{priority="P0"}}{RATE}))',
                    "P0",
                ),
            ),
            "The promise to urgent requests.",
            maximum=1,
        ),
        Panel("Shed", "reqps", (rate_by(f"{G}shed_total", "priority, reason"),), stacked=True),
        Panel("Over a tenant's limit", "reqps", (rate_by(f"{G}limited_total", "tenant, limit"),), stacked=True),
        Panel(
            "Bytes in flight",
            "bytes",
            (
                Query(f"sum({G}body_bytes_in_flight)", "held"),
                Query(f"sum({G}body_bytes_limit)", "limit"),
                Query("sum(process_resident_memory_bytes)", "resident memory"),
            ),
        ),
    ),
)

_BACKENDS = Row(
    "Backends",
    (
        Panel("In rotation", "short", (Query(f"{G}backend_up", "{{backend}}"),), maximum=1),
        Panel(
            "Seats in use",
            "percentunit",
            (Query(f"{G}backend_in_flight / {G}backend_max_in_flight", "{{backend}}"),),
            maximum=1,
        ),
        Panel("Outstanding work", "s", (Query(f"{G}backend_outstanding_seconds", "{{backend}}"),)),
        Panel(
            "Attempts that failed",
            "reqps",
            (rate_by(f"{G}backend_requests_total", "backend, result", 'result!="ok", result!="client_error"'),),
            stacked=True,
        ),
        Panel(
            "Retries, hedges, fallbacks",
            "reqps",
            (
                Query(f"sum(rate({G}retries_total{RATE}))", "retries"),
                Query(f"sum(rate({G}hedges_total{RATE}))", "hedges"),
                Query(f"sum(rate({G}fallbacks_total{RATE}))", "fallbacks"),
            ),
        ),
        Panel("Ejections", "ops", (rate_by(f"{G}backend_ejections_total", "backend"),)),
    ),
)

_WORK = Row(
    "Work, caches and cost",
    (
        Panel(
            "Tokens",
            "tokens/s",
            (
                Query(f"sum(rate({G}prompt_tokens_total{{{MODEL}}}{RATE}))", "prompt"),
                Query(f"sum(rate({G}vision_tokens_total{{{MODEL}}}{RATE}))", "vision (within prompt)"),
                Query(f"sum(rate({G}generation_tokens_total{{{MODEL}}}{RATE}))", "generated"),
            ),
        ),
        Panel(
            "Cost per request",
            "s",
            (
                Query(
                    f"sum by (model_name) (rate({G}cost_seconds_total{{{MODEL}}}{RATE})) "
                    f"/ sum by (model_name) (rate({G}requests_total{{{MODEL}}}{RATE}))",
                    "{{model_name}}",
                ),
            ),
            "Backend seconds, as priced.",
        ),
        Panel("Cost by tenant", "short", (rate_by(f"{G}cost_seconds_total", "tenant", MODEL),), stacked=True),
        Panel(
            "Response cache",
            "percentunit",
            (
                Query(
                    f'sum(rate({G}cache_requests_total{{result=~"hit|joined"}}{RATE})) '
                    f"/ sum(rate({G}cache_requests_total{RATE}))",
                    "answered without a backend",
                ),
            ),
            maximum=1,
        ),
        Panel(
            "Cut off by max_tokens",
            "percentunit",
            (
                Query(
                    f'sum by (model_name) (rate({G}choices_finished_total{{{MODEL}, finished_reason="length"}}{RATE})) '
                    f"/ sum by (model_name) (rate({G}choices_finished_total{{{MODEL}}}{RATE}))",
                    "{{model_name}}",
                ),
            ),
        ),
        Panel(
            "Users",
            "short",
            (
                Query(f"sum({G}active_tenants)", "active tenants"),
                Query(f"sum({G}requests_in_flight)", "requests in flight"),
            ),
        ),
    ),
)

GATEWAY_DASHBOARD = Dashboard(
    "foveal-gateway",
    "Foveal gateway",
    "What users feel, where the time goes, queue, backends, work.",
    (_USERS, _TIME, _QUEUE, _BACKENDS, _WORK),
    f"{G}requests_total",
)
