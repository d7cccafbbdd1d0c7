"""Which picture sizes the queue should hold back for a moment."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from foveal.core.priority import URGENT_FRACTION
from foveal.engine.scheduling.pacing.vision_wait import VisionWait
from foveal.engine.scheduling.request import Request
from foveal.engine.scheduling.vision_budget import VisionBudget

__all__ = ["sizes_to_hold"]

LOOKED_AT = 64
"""Waiting requests that are looked at per step."""


def sizes_to_hold(
    waiting: Iterable[Request], vision: VisionBudget, wait: VisionWait, now_s: float
) -> tuple[frozenset[int], float | None]:
    """(sizes in patches, when the first of them must go). A request that was preempted, or whose class becomes urgent,
    is not held."""
    groups: dict[int, list[Request]] = {}
    for request in islice(waiting, LOOKED_AT):
        if request.images and not request.num_preemptions:
            patches = vision.next_to_encode(request, 0)
            if patches is not None:
                groups.setdefault(patches, []).append(request)
    held: dict[int, float] = {}
    for patches, requests in groups.items():
        deadline_s = min(_deadline_s(request) for request in requests)
        oldest_s = min(request.arrival_s for request in requests)
        until_s = wait.hold_until_s(patches, len(requests), oldest_s, deadline_s, now_s)
        if until_s is not None and until_s > now_s:
            held[patches] = until_s
    return frozenset(held), min(held.values(), default=None)


def _deadline_s(request: Request) -> float:
    urgent_s = request.arrival_s + URGENT_FRACTION * request.priority.deadline_s
    return urgent_s if request.deadline_s is None else min(urgent_s, request.deadline_s)
