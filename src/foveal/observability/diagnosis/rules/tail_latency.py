"""A few requests that take many times as long as most."""

from __future__ import annotations

from dataclasses import dataclass

from foveal.core.priority import Priority
from foveal.observability.diagnosis.finding import Finding, seconds
from foveal.observability.diagnosis.window import Window

__all__ = ["tail_latency"]

_RATIO = 5.0
_LEAST_S = 0.05
_LEAST_REQUESTS = 20
_G = "foveal_gateway_"


@dataclass(frozen=True, slots=True)
class _Stage:
    name: str
    histogram: str
    cause: str
    remedy: tuple[str, ...]
    label: str = ""
    """Which label selects: `stage` (its name), `priority` (the class that is judged), none."""


_ENGINE_STAGES = (
    _Stage(
        "queue",
        "foveal_request_queue_time_seconds",
        "The slow ones waited in the engine's queue: it was full when they came.",
        ("raise --max-num-seqs if memory allows", "add a replica", "send the urgent ones as P0"),
    ),
    _Stage(
        "image fetch",
        "foveal_request_image_fetch_time_seconds",
        "The slow ones waited for a remote picture.",
        ("send pictures as data URLs, or from a host nearby", "lower --fetch-timeout"),
    ),
    _Stage(
        "preprocess",
        "foveal_request_preprocess_time_seconds",
        "The slow ones have pictures that take long to decode, or waited for a worker that does.",
        ("raise --preprocess-workers", "lower --max-image-pixels: large pictures are resized anyway"),
    ),
    _Stage(
        "encode",
        "foveal_request_encode_time_seconds",
        "The slow ones have pictures of many patches: the vision encoder takes their time.",
        ('send them with "detail": "low"', "lower --max-image-pixels"),
    ),
    _Stage(
        "prefill",
        "foveal_request_prefill_time_seconds",
        "The slow ones have long prompts, or were cut into chunks behind the running streams.",
        ("raise --max-num-batched-tokens", "route long prompts to a replica of their own (length_classes)"),
    ),
)

_GATEWAY_QUEUE = _Stage(
    "queue",
    f"{_G}request_queue_time_seconds",
    "The slow ones waited in the gateway for a backend with room.",
    ("add a replica", "give tenants limits, so that a burst of one does not delay all"),
    "priority",
)

_GATEWAY_STAGES = (
    _GATEWAY_QUEUE,
    *(
        _Stage(name, f"{_G}stage_seconds", cause, remedy, "stage")
        for name, cause, remedy in (
            (
                "fetch",
                "The slow ones waited for a remote picture.",
                ("send pictures as data URLs", "let the gateway keep fetched pictures longer"),
            ),
            (
                "retry",
                "The slow ones were tried on a backend that failed before.",
                ("look at that backend's results", "shorten connect_s and first_byte_s, so that retries begin earlier"),
            ),
            (
                "backend",
                "The slow ones were slow at the backend.",
                ("run foveal diagnose on the backend itself", "switch hedging on"),
            ),
        )
    ),
)


def tail_latency(window: Window) -> Finding | None:
    """P99 of the time to the first token above five times P50, from 20 requests on.

    At a gateway within P0 or within P1: P2 may wait, and classes together would always look uneven.
    """
    if not window.has(f"{_G}time_to_first_token_seconds_count"):
        return _judge(window, "foveal_time_to_first_token_seconds", _ENGINE_STAGES, {})
    classes = ({"priority": one.name} for one in (Priority.P0, Priority.P1))
    found = (_judge(window, f"{_G}time_to_first_token_seconds", _GATEWAY_STAGES, labels) for labels in classes)
    return next((finding for finding in found if finding is not None), None)


def _judge(window: Window, ttft: str, stages: tuple[_Stage, ...], labels: dict[str, str]) -> Finding | None:
    typical, slow = window.quantile(ttft, 0.5, **labels), window.quantile(ttft, 0.99, **labels)
    if typical is None or slow is None or window.count(ttft, **labels) < _LEAST_REQUESTS:
        return None
    if slow < _LEAST_S or slow < _RATIO * typical:
        return None
    whose = f" of {labels['priority']}" if labels else ""
    head = f"time to first token{whose}: P50 {seconds(typical)}, P99 {seconds(slow)} ({slow / typical:.0f} times)"
    stage, spread = _widest(window, stages, labels)
    if stage is None:
        return Finding(
            "tail_latency",
            "problem",
            "Some requests take far longer than most",
            "No single stage explains it.",
            (head,),
            ("look at the slow-request log: it holds the waterfall of each",),
        )
    evidence = (head, spread)
    slowest = _slow_backend(window) if stage.name == "backend" else None
    if slowest is not None:
        name, figures = slowest
        return Finding(
            "tail_latency",
            "problem",
            f"Backend {name} is slow",
            "It answers much later than its peers do.",
            (*evidence, figures),
            (f"look at {name}: foveal diagnose on its own address", "route by least_loaded, so that it gets less"),
        )
    title = f"Some requests take far longer than most: {stage.name}"
    return Finding("tail_latency", "problem", title, stage.cause, evidence, stage.remedy)


def _widest(window: Window, stages: tuple[_Stage, ...], labels: dict[str, str]) -> tuple[_Stage | None, str]:
    """The stage whose P99 lies furthest above its P50."""
    best: tuple[float, _Stage, str] | None = None
    for stage in stages:
        own = {"stage": stage.name} if stage.label == "stage" else labels if stage.label else {}
        middle, high = (window.quantile(stage.histogram, q, **own) for q in (0.5, 0.99))
        if middle is None or high is None:
            continue
        # A stage that only the slow ones have has no typical value of its own: all of it is the spread.
        share = window.count(stage.histogram, **own) / max(1.0, _requests(window))
        spread = high - (middle if share > 0.1 else 0.0)
        if best is None or spread > best[0]:
            best = (spread, stage, f"{stage.name}: P50 {seconds(middle)}, P99 {seconds(high)}")
    return (None, "") if best is None or best[0] < _LEAST_S / 2 else (best[1], best[2])


def _requests(window: Window) -> float:
    return window.increase(f"{_G}requests_total") or window.increase("foveal_requests_finished_total")


def _slow_backend(window: Window) -> tuple[str, str] | None:
    histogram = f"{_G}backend_first_byte_seconds"
    means: dict[str, float] = {}
    for name in window.values_of(f"{histogram}_count", "backend"):
        mean = window.average(histogram, backend=name)
        if mean is not None:
            means[name] = mean
    if len(means) < 2:
        return None
    name = max(means, key=lambda one: means[one])
    others = [mean for one, mean in means.items() if one != name]
    peers = sum(others) / len(others)
    if means[name] < 3 * peers:
        return None
    return name, f"mean time to its first byte {seconds(means[name])}; the others {seconds(peers)}"
