"""Machines that idle although there is traffic."""

from __future__ import annotations

from foveal.observability.diagnosis.finding import Finding, per_cent, seconds
from foveal.observability.diagnosis.window import Window

__all__ = ["low_utilisation"]

_LOW = 0.3
_G = "foveal_gateway_"


def low_utilisation(window: Window) -> Finding | None:
    """Less than 30 % of the seats used. Says nothing without traffic: then idling is right."""
    return _gateway(window) if window.has(f"{_G}backend_max_in_flight") else _engine(window)


def _gateway(window: Window) -> Finding | None:
    used, seats = window.mean(f"{_G}backend_in_flight"), window.latest(f"{_G}backend_max_in_flight")
    ended = window.increase(f"{_G}requests_total")
    if used is None or not seats or not ended or used / seats >= _LOW:
        return None
    backends = window.values_of(f"{_G}backend_in_flight", "backend")
    queued = window.mean(f"{_G}queue_length") or 0.0
    evidence = [
        f"{used:.1f} of {seats:.0f} seats at {len(backends)} backends were used ({per_cent(used / seats)})",
        f"{ended / window.seconds:.3g} requests per second, {queued:.1f} waiting on average",
    ]
    if queued >= 1:
        down = [name for name in backends if window.latest(f"{_G}backend_up", backend=name) == 0]
        evidence.append(f"out of rotation: {', '.join(down)}" if down else "all backends are in rotation")
        return Finding(
            "low_utilisation",
            "problem",
            "Requests wait although seats are free",
            "The free seats belong to backends that may not take what waits: another model, out of rotation, or kept for P0.",
            tuple(evidence),
            (
                "bring the backends that are out of rotation back"
                if down
                else "serve the waiting model on more backends",
                "lower urgent_slots if little P0 traffic is expected",
            ),
        )
    return Finding(
        "low_utilisation",
        "notice",
        "The backends idle",
        "Fewer requests come than the replicas can take: concurrency is limited by the clients.",
        tuple(evidence),
        (
            "stop replicas, or use smaller machines" if len(backends) > 1 else "use a smaller machine",
            "send batch work as P2: it fills the gaps without delaying anybody",
        ),
    )


def _engine(window: Window) -> Finding | None:
    running, allowed = window.mean("foveal_num_requests_running"), window.latest("foveal_max_num_seqs")
    waiting = window.mean("foveal_num_requests_waiting") or 0.0
    ended = window.increase("foveal_requests_finished_total")
    if running is None or not allowed or not ended or running / allowed >= _LOW:
        return None
    evidence = [
        f"{running:.1f} of {allowed:.0f} sequences ran on average ({per_cent(running / allowed)})",
        f"{waiting:.1f} waited, {ended / window.seconds:.3g} requests per second ended",
    ]
    ttft = window.average("foveal_time_to_first_token_seconds")
    before = (window.average("foveal_request_preprocess_time_seconds") or 0.0) + (
        window.average("foveal_request_image_fetch_time_seconds") or 0.0
    )
    if ttft and before > 0.5 * ttft:
        return Finding(
            "low_utilisation",
            "problem",
            "The engine waits for pictures",
            "Fetching, decoding and tokenising take longer than computing: requests reach the engine one by one.",
            (
                *evidence,
                f"{seconds(before)} of {seconds(ttft)} to the first token pass before the engine sees the request",
            ),
            (
                "raise --preprocess-workers up to the number of cores",
                "send smaller pictures, or as data URLs instead of links",
            ),
        )
    return Finding(
        "low_utilisation",
        "notice",
        "The engine idles",
        "Few requests are in flight: a batch would cost little more than one request.",
        tuple(evidence),
        ("send more requests at a time", "put several models or tenants on this engine, or use a smaller machine"),
    )
