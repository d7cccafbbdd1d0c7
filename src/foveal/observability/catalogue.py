"""Every metric of the engine server, as data: objects, documentation and (later) dashboards are made from this list.

A name that has a vLLM counterpart keeps vLLM's words behind our prefix, so that a dashboard moves over by replacing
`vllm:` with `foveal_`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["CATALOGUE", "SLA_EDGES_S", "MetricSpec", "metric_spec"]

Kind = Literal["counter", "gauge", "histogram"]
Source = Literal["request", "snapshot"]

SLA_EDGES_S = (0.1, 0.5, 2.0)
"""Class deadlines of P0, P1 and P2: each latency histogram has a bucket edge on each, so that compliance is exact."""


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric. `name` is as exposed, so that counters end in _total. Raises ValueError if it contradicts itself."""

    name: str
    kind: Kind
    help: str
    unit: str = ""
    """seconds, bytes, tokens, ratio, ... or empty for a plain count."""
    labels: tuple[str, ...] = ()
    """Besides model_name, which every metric has."""
    buckets: tuple[float, ...] = ()
    vllm: str = ""
    """The vLLM metric that means the same."""
    source: Source = "request"
    """`request`: recorded as requests proceed. `snapshot`: read from the engine at scrape time."""

    def __post_init__(self) -> None:
        if (self.kind == "counter") != self.name.endswith("_total"):
            raise ValueError(f"{self.name}: counters and only counters end in _total")
        if (self.kind == "histogram") != bool(self.buckets):
            raise ValueError(f"{self.name}: histograms and only histograms have buckets")
        if list(self.buckets) != sorted(set(self.buckets)):
            raise ValueError(f"{self.name}: buckets must increase")


_LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 120.0)
_PER_TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
_STAGE_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_TOKENS = (1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_IMAGES = (0, 1, 2, 4, 8, 16, 32)


def _seconds(name: str, text: str, buckets: tuple[float, ...] = _LATENCY_S, vllm: str = "") -> MetricSpec:
    return MetricSpec(name, "histogram", text, "seconds", buckets=buckets, vllm=vllm)


def _sampled(
    name: str, kind: Kind, text: str, unit: str = "", vllm: str = "", labels: tuple[str, ...] = ()
) -> MetricSpec:
    return MetricSpec(name, kind, text, unit, labels, vllm=vllm, source="snapshot")


CATALOGUE: tuple[MetricSpec, ...] = (
    _seconds(
        "foveal_time_to_first_token_seconds",
        "From arrival of the complete body to the first token, image fetching included.",
        vllm="vllm:time_to_first_token_seconds",
    ),
    _seconds(
        "foveal_inter_token_latency_seconds",
        "Time per output token between two events of a request; one observation per event.",
        _PER_TOKEN_S,
        "vllm:inter_token_latency_seconds",
    ),
    _seconds(
        "foveal_request_time_per_output_token_seconds",
        "Mean time per output token after the first, per request (TPOT).",
        _PER_TOKEN_S,
        "vllm:request_time_per_output_token_seconds",
    ),
    _seconds(
        "foveal_e2e_request_latency_seconds",
        "From arrival of the complete body to the last token.",
        vllm="vllm:e2e_request_latency_seconds",
    ),
    _seconds("foveal_request_queue_time_seconds", "Waiting for the scheduler.", vllm="vllm:request_queue_time_seconds"),
    _seconds(
        "foveal_request_prefill_time_seconds",
        "Computing the prompt, from leaving the queue to the first token.",
        vllm="vllm:request_prefill_time_seconds",
    ),
    _seconds("foveal_request_image_fetch_time_seconds", "Downloading images of http(s) URLs.", _STAGE_S),
    _seconds("foveal_request_preprocess_time_seconds", "Decoding and resizing images, tokenising.", _STAGE_S),
    _seconds("foveal_request_encode_time_seconds", "Running the vision encoder.", _STAGE_S),
    MetricSpec(
        "foveal_request_prompt_tokens",
        "histogram",
        "Prompt tokens per request, image tokens included.",
        "tokens",
        buckets=_TOKENS,
        vllm="vllm:request_prompt_tokens",
    ),
    MetricSpec(
        "foveal_request_generation_tokens",
        "histogram",
        "Generated tokens per request, over all choices.",
        "tokens",
        buckets=_TOKENS,
        vllm="vllm:request_generation_tokens",
    ),
    MetricSpec("foveal_request_images", "histogram", "Images per request.", "images", buckets=_IMAGES),
    MetricSpec(
        "foveal_requests_finished_total",
        "counter",
        "Choices finished (stop, length), and requests that the client left (abort).",
        labels=("finished_reason",),
        vllm="vllm:request_success_total",
    ),
    MetricSpec("foveal_request_errors_total", "counter", "Requests that ended in an error.", labels=("code",)),
    _sampled("foveal_http_requests_in_flight", "gauge", "Generation requests between arrival and last byte."),
    _sampled("foveal_http_body_bytes_in_flight", "gauge", "Body and image bytes held for them.", "bytes"),
    _sampled("foveal_num_requests_running", "gauge", "Sequences in the batch.", vllm="vllm:num_requests_running"),
    _sampled("foveal_num_requests_waiting", "gauge", "Sequences in the queue.", vllm="vllm:num_requests_waiting"),
    _sampled("foveal_kv_cache_usage_perc", "gauge", "KV blocks in use, 0 to 1.", "ratio", "vllm:kv_cache_usage_perc"),
    _sampled("foveal_kv_cache_blocks", "gauge", "KV blocks in the pool.", "blocks"),
    _sampled(
        "foveal_prefix_cache_queries_total",
        "counter",
        "Prompt tokens looked up in the prefix cache.",
        "tokens",
        "vllm:prefix_cache_queries",
    ),
    _sampled(
        "foveal_prefix_cache_hits_total", "counter", "Prompt tokens found there.", "tokens", "vllm:prefix_cache_hits"
    ),
    _sampled(
        "foveal_feature_cache_queries_total",
        "counter",
        "Images looked up in the vision feature cache.",
        "images",
        "vllm:mm_cache_queries",
    ),
    _sampled("foveal_feature_cache_hits_total", "counter", "Images found there.", "images", "vllm:mm_cache_hits"),
    _sampled("foveal_feature_cache_bytes", "gauge", "Size of the vision feature cache.", "bytes"),
    _sampled("foveal_encoded_images_total", "counter", "Images that went through the vision encoder.", "images"),
    _sampled(
        "foveal_num_preemptions_total",
        "counter",
        "Sequences that lost their KV blocks to another one.",
        vllm="vllm:num_preemptions_total",
    ),
    _sampled("foveal_prompt_tokens_total", "counter", "Prompt tokens.", "tokens", "vllm:prompt_tokens_total"),
    _sampled(
        "foveal_generation_tokens_total", "counter", "Generated tokens.", "tokens", "vllm:generation_tokens_total"
    ),
    _sampled("foveal_engine_steps_total", "counter", "Steps of the engine loop."),
    _sampled("foveal_max_num_seqs", "gauge", "Sequences that may run at once now: latency target and memory lower it."),
    _sampled(
        "foveal_latency_correction_ratio",
        "gauge",
        "Step times over what the calibration predicts; 1 without one.",
        "ratio",
    ),
    _sampled(
        "foveal_requests_refused_late_total",
        "counter",
        "Requests refused because their first token was predicted to miss --target-ttft-ms.",
    ),
    _sampled(
        "foveal_memory_used_bytes",
        "gauge",
        "Memory used where the least is left: machine, cgroup or --memory-limit-mib.",
        "bytes",
    ),
    _sampled("foveal_memory_limit_bytes", "gauge", "The limit there.", "bytes"),
    _sampled(
        "foveal_memory_guard_actions_total",
        "counter",
        "What the memory guard took or gave back.",
        labels=("action",),
    ),
    _sampled("foveal_requests_refused_memory_total", "counter", "Requests refused because memory was short."),
    _sampled(
        "foveal_spec_decode_num_drafts_total",
        "counter",
        "Verifications: rows of a step with guessed tokens.",
        vllm="vllm:spec_decode_num_drafts",
    ),
    _sampled(
        "foveal_spec_decode_num_draft_tokens_total",
        "counter",
        "Guessed tokens that were verified.",
        "tokens",
        "vllm:spec_decode_num_draft_tokens",
        labels=("proposer",),
    ),
    _sampled(
        "foveal_spec_decode_num_accepted_tokens_total",
        "counter",
        "Guessed tokens that were right.",
        "tokens",
        "vllm:spec_decode_num_accepted_tokens",
        labels=("proposer",),
    ),
    _sampled(
        "foveal_spec_decode_mean_accepted_length",
        "gauge",
        "Tokens a verification yields, the model's own included; 0 before the first.",
        "tokens",
    ),
)

_BY_NAME = {spec.name: spec for spec in CATALOGUE}


def metric_spec(name: str) -> MetricSpec:
    """Raises KeyError for a name that is not in the catalogue."""
    return _BY_NAME[name]
