"""Caches that save nothing."""

from __future__ import annotations

from foveal.observability.diagnosis.finding import Finding, per_cent, seconds
from foveal.observability.diagnosis.window import Window

__all__ = ["cold_caches"]

_LOW = 0.2
_LEAST_IMAGES = 20
_LEAST_TOKENS = 2000
_LEAST_ANSWERS = 50
_YOUNG_S = 600.0
_G = "foveal_gateway_"


def cold_caches(window: Window) -> Finding | None:
    """Hit rates below 20 % where enough was looked up."""
    return _gateway(window) if window.has(f"{_G}cache_requests_total") else _engine(window)


def _engine(window: Window) -> Finding | None:
    cold: list[str] = []
    for what, name, least in (
        ("image features", "feature_cache", _LEAST_IMAGES),
        ("prompt tokens", "prefix_cache", _LEAST_TOKENS),
    ):
        queries = window.increase(f"foveal_{name}_queries_total")
        if queries >= least:
            hits = window.increase(f"foveal_{name}_hits_total")
            if hits / queries < _LOW:
                cold.append(f"{what}: {hits:.0f} of {queries:.0f} found ({per_cent(hits / queries)})")
    if not cold:
        return None
    started_s = window.latest("process_start_time_seconds")
    age_s = window.scrapes[-1].at_s - started_s if started_s else None
    if age_s is not None and 0 <= age_s < _YOUNG_S:
        return Finding(
            "cold_caches",
            "notice",
            "The caches are still cold",
            "The server started a short while ago.",
            (*cold, f"started {seconds(age_s)} ago"),
            ("wait, and look again", "send the most frequent system prompts once before taking traffic"),
        )
    return Finding(
        "cold_caches",
        "notice",
        "The caches save little",
        "Requests share nothing, or what they share is spread over replicas, or is pushed out before it is asked for again.",
        tuple(cold),
        (
            "behind a gateway, route by affinity: the same picture and prompt go to the same replica",
            "put what is common (system prompt, examples) first in the prompt and what varies last",
            "raise --feature-cache-mib, or --num-kv-blocks for prefixes",
        ),
    )


def _gateway(window: Window) -> Finding | None:
    counter = f"{_G}cache_requests_total"
    asked = window.increase(counter)
    if asked < _LEAST_ANSWERS:
        return None
    saved = window.increase(counter, result="hit") + window.increase(counter, result="joined")
    if saved / asked >= _LOW:
        return None
    size = window.latest(f"{_G}cache_bytes") or 0.0
    return Finding(
        "cold_caches",
        "notice",
        "The response cache saves little",
        "Few deterministic requests repeat within its time to live, or answers are pushed out before they are asked for again.",
        (
            f"{saved:.0f} of {asked:.0f} deterministic requests needed no backend ({per_cent(saved / asked)})",
            f"it holds {size / 2**20:.1f} MiB",
        ),
        (
            "raise its time to live and its bytes if requests do repeat",
            "switch it off if they do not: it costs a digest of each request",
        ),
    )
