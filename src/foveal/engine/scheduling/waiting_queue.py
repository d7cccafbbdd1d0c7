"""Requests that wait for admission: new ones and preempted ones."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterator

from foveal.core.priority import Priority
from foveal.engine.scheduling.policy import queue_level
from foveal.engine.scheduling.request import Request

__all__ = ["LOOKAHEAD", "WaitingQueue"]

LOOKAHEAD = 8
"""How far past the first of a class to look for an image of a size that is already being encoded."""


def _order(request: Request) -> tuple[float, int]:
    return request.arrival_s, request.number


class WaitingQueue:
    """One list per priority class, oldest first.

    Within a class the oldest request always has the best level, so the next one is among the heads: nothing is ever
    sorted again as requests age. A preempted request keeps its arrival time and so returns to the front.
    """

    def __init__(self, ageing_s: float) -> None:
        self._ageing_s = ageing_s
        self._queues: dict[Priority, list[Request]] = {priority: [] for priority in Priority}
        self.num_tokens = 0
        """Tokens to compute for all that wait, prefix hits not counted."""

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def __iter__(self) -> Iterator[Request]:
        for queue in self._queues.values():
            yield from queue

    def add(self, request: Request) -> None:
        insort(self._queues[request.priority], request, key=_order)
        self.num_tokens += request.num_tokens

    def remove(self, request: Request) -> None:
        """Raises ValueError if it is not in the queue."""
        queue = self._queues[request.priority]
        position = bisect_left(queue, _order(request), key=_order)
        if position == len(queue) or queue[position] is not request:
            raise ValueError(f"request {request.request_id} does not wait")
        del queue[position]
        self.num_tokens -= request.num_tokens

    def best(self, now_s: float, encode_sizes: Collection[int] = (), skipped: Collection[str] = ()) -> Request | None:
        """Who is admitted next; None if nobody (but `skipped`) waits.

        `encode_sizes` are the image sizes (encode_tokens) that this step encodes already. Among the first few requests
        that compete at the same level, one whose image has such a size goes ahead, because it fills up the encoder
        batch.
        """
        chosen: Request | None = None
        chosen_key = (0, 0.0, 0)
        for queue in self._queues.values():
            for request in queue:
                if request.request_id in skipped:
                    continue
                key = (queue_level(request, now_s, self._ageing_s), request.arrival_s, request.number)
                if chosen is None or key < chosen_key:
                    chosen, chosen_key = request, key
                break
        if chosen is None or not encode_sizes or not chosen.images or _fits(chosen, encode_sizes):
            return chosen
        for request in self._queues[chosen.priority][:LOOKAHEAD]:
            if request.request_id in skipped or not request.images or not _fits(request, encode_sizes):
                continue
            if queue_level(request, now_s, self._ageing_s) == chosen_key[0]:
                return request
        return chosen


def _fits(request: Request, encode_sizes: Collection[int]) -> bool:
    return request.images[0].encode_tokens in encode_sizes
