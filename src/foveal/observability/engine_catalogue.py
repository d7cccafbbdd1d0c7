"""Every metric of the engine server, as data.

A name that has a vLLM counterpart keeps vLLM's words behind our prefix, so that a dashboard moves over by replacing
`vllm:` with `foveal_`.
"""

from __future__ import annotations

from foveal.observability.buckets import IMAGES, LATENCY_S, PER_TOKEN_S, STAGE_S, TOKENS
from foveal.observability.metric_spec import Kind, MetricSpec

__all__ = ["ENGINE_CATALOGUE"]


def _seconds(name: str, text: str, buckets: tuple[float, ...] = LATENCY_S, vllm: str = "") -> MetricSpec:
    return MetricSpec(name, "histogram", text, "seconds", buckets=buckets, vllm=vllm)


def _sampled(
    name: str, kind: Kind, text: str, unit: str = "", vllm: str = "", labels: tuple[str, ...] = ()
) -> MetricSpec:
    return MetricSpec(name, kind, text, unit, labels, vllm=vllm, source="snapshot")


ENGINE_CATALOGUE: tuple[MetricSpec, ...] = (
    _seconds(
        "foveal_time_to_first_token_seconds",
        "From arrival of the complete body to the first token, image fetching included.",
        vllm="vllm:time_to_first_token_seconds",
    ),
    _seconds(
        "foveal_inter_token_latency_seconds",
        "Time per output token between two events of a request; one observation per event.",
        PER_TOKEN_S,
        "vllm:inter_token_latency_seconds",
    ),
    _seconds(
        "foveal_request_time_per_output_token_seconds",
        "Mean time per output token after the first, per request (TPOT).",
        PER_TOKEN_S,
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
    _seconds("foveal_request_image_fetch_time_seconds", "Downloading images of http(s) URLs.", STAGE_S),
    _seconds("foveal_request_preprocess_time_seconds", "Decoding and resizing images, tokenising.", STAGE_S),
    _seconds("foveal_request_encode_time_seconds", "Running the vision encoder.", STAGE_S),
    MetricSpec(
        "foveal_request_prompt_tokens",
        "histogram",
        "Prompt tokens per request, image tokens included.",
        "tokens",
        buckets=TOKENS,
        vllm="vllm:request_prompt_tokens",
    ),
    MetricSpec(
        "foveal_request_generation_tokens",
        "histogram",
        "Generated tokens per request, over all choices.",
        "tokens",
        buckets=TOKENS,
        vllm="vllm:request_generation_tokens",
    ),
    MetricSpec("foveal_request_images", "histogram", "Images per request.", "images", buckets=IMAGES),
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
    _sampled(
        "foveal_engine_cpu_seconds_total",
        "counter",
        "Processor time of the engine process; process_cpu_seconds_total is the server's before it.",
        "seconds",
    ),
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
