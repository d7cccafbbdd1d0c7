"""A queue, and whose it is."""

from __future__ import annotations

from foveal.core.priority import Priority
from foveal.observability.diagnosis.finding import Finding, per_cent, seconds
from foveal.observability.diagnosis.window import Window

__all__ = ["queueing"]

_SHARE = 0.5
_G = "foveal_gateway_"


def queueing(window: Window) -> Finding | None:
    """One request or more waits in the gateway on average, or some are shed."""
    lengths = {one: window.mean(f"{_G}queue_length", priority=one.name) or 0.0 for one in Priority}
    shed = {one: window.increase(f"{_G}shed_total", priority=one.name) for one in Priority}
    waiting, lost = sum(lengths.values()), sum(shed.values())
    if waiting < 1 and lost == 0:
        return None
    background = (lengths[Priority.P2] + shed[Priority.P2]) / (waiting + lost)
    late = [one for one in (Priority.P0, Priority.P1) if _is_late(window, one)]
    evidence = [
        "waiting on average: " + ", ".join(f"{one.name} {count:.1f}" for one, count in lengths.items()),
        *([f"shed: {', '.join(f'{one.name} {count:.0f}' for one, count in shed.items())}"] if lost else []),
        *(_wait(window, one) for one in Priority if window.count(_HISTOGRAM, priority=one.name)),
    ]
    if background > _SHARE:
        return Finding(
            "queueing_by_p2",
            "problem" if late else "notice",
            "Background requests (P2) fill the queue",
            f"{per_cent(background)} of what waits or is shed is P2. "
            + (
                f"{' and '.join(one.name for one in late)} suffer from it: no seat comes free in time for them."
                if late
                else "More urgent classes are served in time: the queue works as intended."
            ),
            tuple(evidence),
            (
                *(("keep seats free for urgent requests: raise urgent_slots of the backends",) if late else ()),
                "give the tenants that send P2 a limit of requests or vision cost per minute",
                "run P2 at night, or give it a backend of its own",
            ),
        )
    return Finding(
        "queueing",
        "problem" if late or shed[Priority.P0] + shed[Priority.P1] else "notice",
        "Requests wait in the gateway",
        "More comes than the backends can take, and it is not background work.",
        tuple(evidence),
        (
            "add a replica",
            "raise max_in_flight of the backends if they are not busy",
            "give the largest tenants limits",
        ),
    )


_HISTOGRAM = f"{_G}request_queue_time_seconds"


def _is_late(window: Window, priority: Priority) -> bool:
    """More than 1 % wait beyond the class's deadline."""
    slow = window.quantile(_HISTOGRAM, 0.99, priority=priority.name)
    return slow is not None and slow > priority.deadline_s * 1.001


def _wait(window: Window, priority: Priority) -> str:
    p95 = window.quantile(_HISTOGRAM, 0.95, priority=priority.name)
    return f"{priority.name} queue time P95 {seconds(p95 or 0.0)}; its promise is {seconds(priority.deadline_s)}"
