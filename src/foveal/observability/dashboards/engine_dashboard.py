"""One engine, or several, from the inside."""

from __future__ import annotations

from foveal.observability.dashboards.panel import Dashboard, Panel, Query, Row
from foveal.observability.dashboards.queries import MODEL, RATE, quantiles, rate_by, share

__all__ = ["ENGINE_DASHBOARD"]

_LATENCY = Row(
    "Latency",
    (
        Panel("Time to first token", "s", quantiles("foveal_time_to_first_token_seconds", MODEL)),
        Panel("Inter-token latency", "s", quantiles("foveal_inter_token_latency_seconds", MODEL)),
        Panel("End to end", "s", quantiles("foveal_e2e_request_latency_seconds", MODEL)),
        Panel("Queue", "s", quantiles("foveal_request_queue_time_seconds", MODEL)),
        Panel(
            "Stages to the first token, mean",
            "s",
            tuple(
                Query(
                    f"sum(rate(foveal_request_{stage}_time_seconds_sum{{{MODEL}}}{RATE})) "
                    f"/ sum(rate(foveal_request_{stage}_time_seconds_count{{{MODEL}}}{RATE}))",
                    stage,
                )
                for stage in ("image_fetch", "preprocess", "queue", "encode", "prefill")
            ),
            "encode runs within prefill.",
            width=16,
        ),
    ),
)

_LOAD = Row(
    "Load",
    (
        Panel("Requests finished", "reqps", (rate_by("foveal_requests_finished_total", "finished_reason", MODEL),)),
        Panel(
            "Tokens",
            "tokens/s",
            (
                Query(f"sum(rate(foveal_prompt_tokens_total{{{MODEL}}}{RATE}))", "prompt"),
                Query(f"sum(rate(foveal_generation_tokens_total{{{MODEL}}}{RATE}))", "generated"),
            ),
        ),
        Panel(
            "Sequences",
            "short",
            (
                Query(f"sum(foveal_num_requests_running{{{MODEL}}})", "running"),
                Query(f"sum(foveal_num_requests_waiting{{{MODEL}}})", "waiting"),
                Query(f"sum(foveal_max_num_seqs{{{MODEL}}})", "allowed"),
            ),
        ),
        Panel(
            "Batch efficiency",
            "percentunit",
            (
                Query(
                    f"sum(avg_over_time(foveal_num_requests_running{{{MODEL}}}{RATE})) "
                    f"/ sum(avg_over_time(foveal_max_num_seqs{{{MODEL}}}{RATE}))",
                    "seats in use",
                ),
            ),
            maximum=1,
        ),
        Panel("Errors", "reqps", (rate_by("foveal_request_errors_total", "code", MODEL),), stacked=True),
        Panel(
            "Cores busy",
            "short",
            (
                Query(
                    f"sum by (instance) (rate(foveal_engine_cpu_seconds_total{{{MODEL}}}{RATE}))", "engine {{instance}}"
                ),
                Query(f"sum by (instance) (rate(process_cpu_seconds_total{RATE}))", "server {{instance}}"),
            ),
        ),
    ),
)

_MEMORY = Row(
    "Memory and caches",
    (
        Panel(
            "KV cache in use",
            "percentunit",
            (Query(f"foveal_kv_cache_usage_perc{{{MODEL}}}", "{{instance}}"),),
            maximum=1,
        ),
        Panel("Preemptions", "ops", (rate_by("foveal_num_preemptions_total", "", MODEL),)),
        Panel(
            "Cache hits",
            "percentunit",
            (
                share("foveal_prefix_cache_hits_total", "foveal_prefix_cache_queries_total", "prefix tokens", MODEL),
                share("foveal_feature_cache_hits_total", "foveal_feature_cache_queries_total", "image features", MODEL),
            ),
            maximum=1,
        ),
        Panel(
            "Memory",
            "bytes",
            (
                Query(f"sum by (instance) (foveal_memory_used_bytes{{{MODEL}}})", "used {{instance}}"),
                Query(f"sum by (instance) (foveal_memory_limit_bytes{{{MODEL}}})", "limit {{instance}}"),
            ),
        ),
        Panel("Memory guard", "ops", (rate_by("foveal_memory_guard_actions_total", "action", MODEL),)),
        Panel(
            "Speculation",
            "percentunit",
            (
                Query(
                    f"sum by (proposer) (rate(foveal_spec_decode_num_accepted_tokens_total{{{MODEL}}}{RATE})) "
                    f"/ sum by (proposer) (rate(foveal_spec_decode_num_draft_tokens_total{{{MODEL}}}{RATE}))",
                    "{{proposer}} accepted",
                ),
            ),
            maximum=1,
        ),
    ),
)

ENGINE_DASHBOARD = Dashboard(
    "foveal-engine",
    "Foveal engine",
    "Latency, load, memory and caches of the engines.",
    (_LATENCY, _LOAD, _MEMORY),
    "foveal_num_requests_running",
)
