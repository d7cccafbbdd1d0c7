"""KV cache and memory that run out."""

from __future__ import annotations

from foveal.observability.diagnosis.finding import Finding, per_cent
from foveal.observability.diagnosis.window import Window

__all__ = ["kv_pressure", "memory_pressure"]

_FULL = 0.9
_TIGHT = 0.85


def kv_pressure(window: Window) -> Finding | None:
    """KV blocks above 90 %, or sequences that lost theirs."""
    used = window.mean("foveal_kv_cache_usage_perc")
    lost = window.increase("foveal_num_preemptions_total")
    if used is None or (used < _FULL and lost == 0):
        return None
    evidence = [f"{per_cent(used)} of the KV cache in use on average"]
    if lost:
        evidence.append(f"{lost:.0f} sequences lost their blocks and were computed again")
    images = window.average("foveal_request_images")
    prompt = window.average("foveal_request_prompt_tokens")
    if prompt:
        evidence.append(f"{prompt:.0f} prompt tokens per request" + (f", {images:.1f} images" if images else ""))
    with_images = bool(images and images >= 0.5)
    return Finding(
        "kv_pressure",
        "problem" if lost else "notice",
        "The KV cache is too small for what runs",
        "Pictures fill it: each is hundreds of tokens." if with_images else "Prompts and answers together fill it.",
        tuple(evidence),
        (
            'send pictures with "detail": "low"' if with_images else "lower max_tokens",
            "use an 8-bit KV cache (--kv-dtype int8): twice the tokens in the same memory",
            "lower --max-num-seqs, so that fewer sequences share it, or raise --num-kv-blocks",
            "add a replica",
        ),
    )


def memory_pressure(window: Window) -> Finding | None:
    """Memory above 85 %, or a guard that acts, or requests refused for it: what comes before OOM."""
    used, limit = window.highest("foveal_memory_used_bytes"), window.latest("foveal_memory_limit_bytes")
    taken = {
        action: window.increase("foveal_memory_guard_actions_total", action=action)
        for action in ("shrink_features", "drop_prefixes", "fewer_sequences", "refuse")
    }
    refused = window.increase("foveal_requests_refused_memory_total")
    tight = bool(used and limit and used / limit > _TIGHT)
    if not tight and not refused and not any(taken.values()):
        return None
    evidence = []
    if used and limit:
        evidence.append(f"{used / 2**20:,.0f} of {limit / 2**20:,.0f} MiB used at most ({per_cent(used / limit)})")
    done = [f"{action.replace('_', ' ')} {count:.0f} times" for action, count in taken.items() if count]
    if done:
        evidence.append("the memory guard acted: " + ", ".join(done))
    if refused:
        evidence.append(f"{refused:.0f} requests were refused")
    return Finding(
        "memory_pressure",
        "problem",
        "Memory is short",
        "The guard gives caches and seats away before the system would kill the process.",
        tuple(evidence),
        (
            "quantise the weights (foveal compress), or use --kv-dtype int8",
            "lower --memory-utilization or --num-kv-blocks, so that less is taken at the start",
            "lower --feature-cache-mib",
            "give the container more memory",
        ),
    )
