"""The vision encoder as the bottleneck."""

from __future__ import annotations

from foveal.observability.diagnosis.finding import Finding, per_cent, seconds
from foveal.observability.diagnosis.window import Window

__all__ = ["encoder_bound"]

_SHARE = 0.5
_LEAST_REQUESTS = 10
_G = "foveal_gateway_"


def encoder_bound(window: Window) -> Finding | None:
    """Encoding takes more than half of the work up to the first token (engine) or of all priced work (gateway)."""
    return _gateway(window) if window.has(f"{_G}cost_seconds_total") else _engine(window)


def _engine(window: Window) -> Finding | None:
    encode, prefill = "foveal_request_encode_time_seconds", "foveal_request_prefill_time_seconds"
    if window.count(encode) < _LEAST_REQUESTS:
        return None
    # Both are wall time per request, and encoding happens within prefill.
    share = window.increase(f"{encode}_sum") / max(1e-9, window.increase(f"{prefill}_sum"))
    if share <= _SHARE:
        return None
    looked_up = window.increase("foveal_feature_cache_queries_total")
    found = window.increase("foveal_feature_cache_hits_total")
    evidence = [
        f"{per_cent(min(share, 1.0))} of prefill time is the vision encoder",
        f"encoding: mean {seconds(window.average(encode) or 0.0)}, P99 {seconds(window.quantile(encode, 0.99) or 0.0)}",
        f"{window.rate('foveal_encoded_images_total'):.3g} images encoded per second",
    ]
    if looked_up:
        evidence.append(f"{per_cent(found / looked_up)} of images were found in the feature cache")
    return _finding(tuple(evidence), repeats_unused=bool(looked_up and found / looked_up < 0.2))


def _gateway(window: Window) -> Finding | None:
    vision, cost = window.increase(f"{_G}vision_seconds_total"), window.increase(f"{_G}cost_seconds_total")
    images = window.increase(f"{_G}images_total")
    if images < _LEAST_REQUESTS or cost <= 0 or vision / cost <= _SHARE:
        return None
    tokens = window.increase(f"{_G}vision_tokens_total")
    return _finding(
        (
            f"{per_cent(vision / cost)} of the priced work is vision encoding",
            f"{images / window.seconds:.3g} images per second, {tokens / images:.0f} vision tokens each",
        ),
        repeats_unused=False,
    )


def _finding(evidence: tuple[str, ...], *, repeats_unused: bool) -> Finding:
    first = (
        "route by image affinity, so that repeated pictures are found in the feature cache"
        if repeats_unused
        else 'send pictures with "detail": "low" where small print does not matter'
    )
    return Finding(
        "encoder_bound",
        "problem",
        "The vision encoder is the bottleneck",
        "Pictures cost more than text: the language model waits for their features.",
        evidence,
        (
            first,
            "lower the pixel budget (mm_processor_kwargs, --max-image-pixels)",
            "compress the vision tower too (foveal compress), or give pictures replicas of their own",
        ),
    )
