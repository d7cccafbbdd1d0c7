"""A second backend is asked when the first is late; the earlier answer wins, the other is broken off."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from foveal.core.clock import Clock
from foveal.gateway.backends.pool import BackendPool, Lease
from foveal.gateway.resilience.hedge_policy import HedgePolicy
from foveal.gateway.resilience.outcome import Outcome
from foveal.gateway.serving.asking import Asking, AttemptMetrics, Opened
from foveal.gateway.serving.call import Call
from foveal.gateway.serving.forwarder import answer_outcome
from foveal.gateway.serving.seats import Seats

__all__ = ["Hedging"]


class Hedging:
    def __init__(
        self,
        asking: Asking,
        seats: Seats,
        pool: BackendPool,
        policy: HedgePolicy | None,
        metrics: AttemptMetrics,
        clock: Clock,
    ) -> None:
        """`policy` None: never."""
        self._asking = asking
        self._seats = seats
        self._pool = pool
        self._policy = policy
        self._metrics = metrics
        self._clock = clock

    async def ask(self, call: Call, lease: Lease, failed: Iterable[str]) -> Opened:
        """Takes over `lease`. Raises UpstreamError: of the later attempt, if both failed."""
        policy = self._policy
        if policy is None:
            return await self._asking.ask(call, lease)
        delay_s = policy.delay_s(call.price.cost_ms, self._busy_fraction(call.model))
        if delay_s is None:
            opened = await self._asking.ask(call, lease)
            policy.record(opened.first_byte_s, call.price.cost_ms)
            return opened
        tasks = [asyncio.create_task(self._asking.ask(call, lease))]
        try:
            done, _ = await asyncio.wait(tasks, timeout=delay_s)
            if not done and (second := self._second(call, {lease.backend.id, *failed})) is not None:
                tasks.append(asyncio.create_task(self._asking.ask(call, second)))
            winner = await _first_good(tasks)
            if len(tasks) == 1:
                policy.record(winner.result().first_byte_s, call.price.cost_ms)
            else:
                self._metrics.count("hedges_total", "won" if winner is tasks[1] else "lost")
            tasks.remove(winner)
            return winner.result()
        finally:
            await _discard(tasks)

    def _second(self, call: Call, taken: set[str]) -> Lease | None:
        assert self._policy is not None
        lease = self._seats.take_another(call, frozenset(taken))
        if lease is not None and not self._policy.try_spend(self._clock.now_s()):
            self._seats.release(lease, Outcome.CLIENT_GONE)
            return None
        return lease

    def _busy_fraction(self, model: str) -> float:
        loads = [load for load in self._pool.loads(self._clock.now_s(), model) if load.state.takes_requests]
        slots = sum(load.slots for load in loads)
        return sum(load.in_flight for load in loads) / slots if slots else 1.0


async def _first_good(tasks: list[asyncio.Task[Opened]]) -> asyncio.Task[Opened]:
    """The first task with an answer that needs no retry; without one, the last that ended. Raises its UpstreamError."""
    pending = set(tasks)
    last = tasks[0]
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            last = task
            if task.exception() is None and not answer_outcome(task.result().answer.head.status).may_retry:
                return task
    last.result()
    return last


async def _discard(tasks: list[asyncio.Task[Opened]]) -> None:
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, Opened):
            await ended.close(Outcome.CLIENT_GONE)
