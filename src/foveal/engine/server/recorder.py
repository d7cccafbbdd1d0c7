"""Turns the course of requests into metrics, and EngineStats into the snapshot that the scrape reads."""

from __future__ import annotations

from foveal.core.clock import Clock
from foveal.engine.api import EngineStats
from foveal.engine.outputs import RequestMetrics, RequestOutput
from foveal.observability.metrics import Metrics, Snapshot

__all__ = ["RequestRecorder", "RequestTimer", "engine_snapshot"]


class RequestRecorder:
    """Metric objects bound once: what runs per token is one comparison and one `observe`."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self.metrics = metrics
        self.clock = clock
        self.ttft = metrics.histogram("foveal_time_to_first_token_seconds")
        self.inter_token = metrics.histogram("foveal_inter_token_latency_seconds")
        self.tpot = metrics.histogram("foveal_request_time_per_output_token_seconds")
        self.e2e = metrics.histogram("foveal_e2e_request_latency_seconds")
        self.queue = metrics.histogram("foveal_request_queue_time_seconds")
        self.prefill = metrics.histogram("foveal_request_prefill_time_seconds")
        self.fetch = metrics.histogram("foveal_request_image_fetch_time_seconds")
        self.preprocess = metrics.histogram("foveal_request_preprocess_time_seconds")
        self.encode = metrics.histogram("foveal_request_encode_time_seconds")
        self.prompt_tokens = metrics.histogram("foveal_request_prompt_tokens")
        self.generation_tokens = metrics.histogram("foveal_request_generation_tokens")
        self.images = metrics.histogram("foveal_request_images")

    def start(self) -> RequestTimer:
        """Call it when the body is complete."""
        return RequestTimer(self, self.clock.now_s())

    def error(self, code: str) -> None:
        """`code` is one of the error classes' codes, so that the label stays small."""
        self.metrics.count("foveal_request_errors_total", code)

    def aborted(self) -> None:
        """The client left."""
        self.metrics.count("foveal_requests_finished_total", "abort")


class RequestTimer:
    """Follows one HTTP request; seconds of the recorder's clock. With several prompts, the first token of any counts."""

    def __init__(self, recorder: RequestRecorder, arrival_s: float) -> None:
        self._recorder = recorder
        self.arrival_s = arrival_s
        self.fetch_s: float | None = None
        self.first_s: float | None = None
        self.outputs: list[RequestOutput] = []
        """The last event of each prompt that has ended."""
        self.finish_reasons: list[str] = []
        self._last_s = 0.0

    def images_loaded(self, num_images: int, num_fetched: int) -> None:
        """All images are here; `num_fetched` of them came from URLs."""
        self._recorder.images.observe(num_images)
        if num_fetched:
            self.fetch_s = self._recorder.clock.now_s() - self.arrival_s
            self._recorder.fetch.observe(self.fetch_s)

    def event(self, output: RequestOutput) -> None:
        """Called for each event that the engine sends."""
        num_tokens = max((len(delta.token_ids) for delta in output.deltas), default=0)
        if num_tokens == 0:
            return
        now_s = self._recorder.clock.now_s()
        if self.first_s is None:
            self.first_s = now_s
            self._recorder.ttft.observe(now_s - self.arrival_s)
        else:
            self._recorder.inter_token.observe((now_s - self._last_s) / num_tokens)
        self._last_s = now_s

    def finished(self, output: RequestOutput, finish_reasons: list[str]) -> None:
        """Called once per prompt with its last event."""
        recorder, metrics = self._recorder, output.metrics
        self.outputs.append(output)
        self.finish_reasons += finish_reasons
        recorder.queue.observe(metrics.queue_s)
        recorder.prefill.observe(metrics.prefill_s)
        recorder.preprocess.observe(metrics.preprocess_s)
        if output.usage.image_tokens:
            recorder.encode.observe(metrics.encode_s)
        recorder.prompt_tokens.observe(output.usage.prompt_tokens)
        recorder.generation_tokens.observe(output.usage.completion_tokens)
        now_s = recorder.clock.now_s()
        recorder.e2e.observe(now_s - self.arrival_s)
        per_choice = output.usage.completion_tokens / max(1, len(finish_reasons))
        if self.first_s is not None and per_choice > 1:
            recorder.tpot.observe((now_s - self.first_s) / (per_choice - 1))
        for reason in finish_reasons:
            recorder.metrics.count("foveal_requests_finished_total", reason)

    def server_timing(self, metrics: RequestMetrics) -> str:
        """The waterfall to the first token as a Server-Timing header, milliseconds."""
        stages = [
            ("preprocess", metrics.preprocess_s),
            ("queue", metrics.queue_s),
            ("encode", metrics.encode_s),
            ("prefill", metrics.prefill_s),
        ]
        if self.fetch_s is not None:
            stages.insert(0, ("fetch", self.fetch_s))
        if self.first_s is not None:
            stages.append(("ttft", self.first_s - self.arrival_s))
        return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in stages)


def engine_snapshot(stats: EngineStats, requests_in_flight: int, bytes_in_flight: int) -> Snapshot:
    """Values for all metrics whose source is the scrape-time snapshot."""
    return {
        "foveal_http_requests_in_flight": requests_in_flight,
        "foveal_http_body_bytes_in_flight": bytes_in_flight,
        "foveal_num_requests_running": stats.num_running,
        "foveal_num_requests_waiting": stats.num_waiting,
        "foveal_kv_cache_usage_perc": stats.kv_blocks_used / stats.kv_blocks_total if stats.kv_blocks_total else 0.0,
        "foveal_kv_cache_blocks": stats.kv_blocks_total,
        "foveal_prefix_cache_queries_total": stats.prefix_cache_queries,
        "foveal_prefix_cache_hits_total": stats.prefix_cache_hits,
        "foveal_feature_cache_queries_total": stats.feature_cache_queries,
        "foveal_feature_cache_hits_total": stats.feature_cache_hits,
        "foveal_feature_cache_bytes": stats.feature_cache_bytes,
        "foveal_encoded_images_total": stats.encoded_images,
        "foveal_num_preemptions_total": stats.num_preemptions,
        "foveal_prompt_tokens_total": stats.prompt_tokens,
        "foveal_generation_tokens_total": stats.generation_tokens,
        "foveal_engine_steps_total": stats.steps,
        "foveal_engine_cpu_seconds_total": stats.cpu_s,
        "foveal_max_num_seqs": stats.max_num_seqs,
        "foveal_latency_correction_ratio": stats.latency_correction,
        "foveal_requests_refused_late_total": stats.refused_late,
        "foveal_memory_used_bytes": stats.memory_used_bytes,
        "foveal_memory_limit_bytes": stats.memory_limit_bytes,
        "foveal_requests_refused_memory_total": stats.refused_memory,
        "foveal_memory_guard_actions_total": {
            "shrink_features": stats.memory_shrink_features,
            "drop_prefixes": stats.memory_drop_prefixes,
            "fewer_sequences": stats.memory_fewer_sequences,
            "refuse": stats.memory_refuse,
            "accept": stats.memory_accept,
            "more_sequences": stats.memory_more_sequences,
            "grow_features": stats.memory_grow_features,
        },
        "foveal_spec_decode_num_drafts_total": stats.spec_rounds,
        "foveal_spec_decode_num_draft_tokens_total": {
            "grammar": stats.spec_drafted_grammar,
            "ngram": stats.spec_drafted_ngram,
            "draft": stats.spec_drafted_draft,
        },
        "foveal_spec_decode_num_accepted_tokens_total": {
            "grammar": stats.spec_accepted_grammar,
            "ngram": stats.spec_accepted_ngram,
            "draft": stats.spec_accepted_draft,
        },
        "foveal_spec_decode_mean_accepted_length": stats.spec_mean_accepted_length,
    }
