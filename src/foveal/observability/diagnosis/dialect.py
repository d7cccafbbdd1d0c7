"""Other servers' metric names, version by version, as ours: the rules then read one language."""

from __future__ import annotations

from foveal.observability.engine_catalogue import ENGINE_CATALOGUE

__all__ = ["as_ours"]

_OLDER_VLLM = {
    # until 0.9: the first engine's names
    "vllm:gpu_cache_usage_perc": "vllm:kv_cache_usage_perc",
    "vllm:gpu_prefix_cache_queries": "vllm:prefix_cache_queries",
    "vllm:gpu_prefix_cache_hits": "vllm:prefix_cache_hits",
    # until 0.10; time_per_output_token meant what inter_token_latency means now
    "vllm:time_per_output_token_seconds": "vllm:inter_token_latency_seconds",
}
"""Name in older versions -> name in 0.33. Source: vllm/v1/metrics/loggers.py and docs/usage/metrics, 0.4 to 0.33."""

_VLLM = {spec.vllm.removesuffix("_total"): spec.name.removesuffix("_total") for spec in ENGINE_CATALOGUE if spec.vllm}

_SUFFIXES = ("_bucket", "_count", "_sum", "_total", "_created")


def as_ours(name: str) -> str:
    """A sample's name as our engine would write it; unchanged if it is ours or means nothing to us."""
    if not name.startswith("vllm:"):
        return name
    suffix = next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), "")
    base = name.removesuffix(suffix)
    ours = _VLLM.get(_OLDER_VLLM.get(base, base))
    return name if ours is None else ours + suffix
