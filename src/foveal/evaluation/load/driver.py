"""Drive a server: an open loop sends when requests are due, a closed loop when an answer has come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from foveal.core.clock import Clock
from foveal.evaluation.load.dataset import LoadRequest
from foveal.evaluation.load.record import RequestRecord

__all__ = ["Send", "run_closed_loop", "run_open_loop"]

Send = Callable[[LoadRequest, float | None], Awaitable[RequestRecord]]
"""(request, when it is due) -> record; `ChatClient.send`."""


async def run_open_loop(
    send: Send,
    requests: Sequence[LoadRequest],
    offsets_s: Sequence[float],
    clock: Clock,
    on_record: Callable[[RequestRecord], None],
) -> None:
    """Send request i at `offsets_s[i]` seconds from now, whether or not earlier ones have been answered."""
    start_s = clock.now_s()

    async def one(request: LoadRequest, due_s: float) -> None:
        on_record(await send(request, due_s))

    async with asyncio.TaskGroup() as group:
        for request, offset_s in zip(requests, offsets_s, strict=True):
            due_s = start_s + offset_s
            await asyncio.sleep(max(0.0, due_s - clock.now_s()))
            group.create_task(one(request, due_s))


async def run_closed_loop(
    send: Send,
    next_request: Callable[[], Awaitable[LoadRequest]],
    concurrency: int,
    clock: Clock,
    on_record: Callable[[RequestRecord], None],
    *,
    num_requests: int | None = None,
    duration_s: float | None = None,
) -> None:
    """Keep `concurrency` requests in flight until `num_requests` were sent or `duration_s` is over.

    Requests in flight at that time are waited for. Drawing a request does not count as latency.
    """
    start_s = clock.now_s()
    num_sent = 0

    async def worker() -> None:
        nonlocal num_sent
        while num_requests is None or num_sent < num_requests:
            if duration_s is not None and clock.now_s() - start_s >= duration_s:
                return
            num_sent += 1
            on_record(await send(await next_request(), None))

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker())
