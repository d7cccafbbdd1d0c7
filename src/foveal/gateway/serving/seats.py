"""Who gets a backend's slot, and when: at once where there is room and nobody waits, else by the model's queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from foveal.core.clock import Clock
from foveal.core.errors import BackendUnavailableError, OverloadedError
from foveal.core.priority import Priority
from foveal.gateway.backends.pool import BackendPool, Lease
from foveal.gateway.queueing.config import QueueConfig
from foveal.gateway.queueing.fair_queue import FairQueue
from foveal.gateway.queueing.ticket import Shed, ShedReason, Ticket
from foveal.gateway.resilience.outcome import Outcome
from foveal.gateway.routing.policy import RoutingPolicy
from foveal.gateway.serving.call import Call

__all__ = ["QueueTimeoutError", "Seats"]

_LOOK_AGAIN_S = 0.25
"""While somebody waits: a returning backend's share grows without an event."""


class QueueTimeoutError(OverloadedError):
    """The queue's deadline passed."""

    code = "queue_timeout"


@dataclass(slots=True)
class _Waiter:
    call: Call
    seat: asyncio.Future[Lease]


class Seats:
    """Lives on one event loop. Every lease it hands out comes back through `release`, exactly once."""

    def __init__(
        self,
        pool: BackendPool,
        policy_of: Callable[[str], RoutingPolicy],
        queue: QueueConfig,
        clock: Clock,
        on_shed: Callable[[Shed], None] = lambda shed: None,
    ) -> None:
        """`policy_of` gives a model's routing policy; `on_shed` hears of everybody who leaves the queue without a seat."""
        self._pool = pool
        self._policy_of = policy_of
        self._queue_config = queue
        self._clock = clock
        self._on_shed = on_shed
        self._queues: dict[str, FairQueue] = {}
        self._waiters: dict[str, _Waiter] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def num_waiting(self) -> int:
        return len(self._waiters)

    @property
    def queues(self) -> dict[str, FairQueue]:
        """By model. For metrics and pages; not to be changed."""
        return self._queues

    def take_now(self, call: Call, excluded: frozenset[str] = frozenset()) -> Lease | None:
        """A slot, if there is one and nobody waits who comes first."""
        queue = self._queues.get(call.model)
        if queue is not None and queue.waits_before(call.priority):
            return None
        return self._acquire(call, excluded)

    async def take(self, call: Call, until_s: float, excluded: frozenset[str] = frozenset()) -> Lease:
        """A slot, now or later. Backends in `excluded` (it failed there) are taken only where there is no other.

        Raises OverloadedError (shed), QueueTimeoutError (`until_s` passed), BackendUnavailableError (the same, and no
        backend takes requests).
        """
        lease = self.take_now(call, excluded)
        if lease is not None:
            return lease
        ticket = _ticket(call, until_s, excluded)
        queue = self._queue(call.model)
        seat: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self._waiters[ticket.id] = _Waiter(call, seat)
        try:
            for shed in queue.push(ticket, self._clock.now_s()):
                self._refuse(shed)
            self._set_timer()
            return await seat
        except BaseException:
            self._forget(ticket, seat)
            raise

    def release(self, lease: Lease, outcome: Outcome, first_byte_s: float | None = None) -> None:
        """Give a slot back, and let the next one in."""
        self._pool.release(lease, outcome, self._clock.now_s(), first_byte_s)
        if self._waiters:
            self.look(lease.backend.model)

    def look(self, model: str | None = None) -> None:
        """Let in whoever can start now, of one model or of all. Call it when a backend's state may have changed."""
        for name in [model] if model is not None else list(self._queues):
            queue = self._queues.get(name)
            if queue is not None and len(queue):
                self._pump(name, queue)
        self._set_timer()

    def close(self, reason: str) -> None:
        """Refuse everybody who waits."""
        for waiter in list(self._waiters.values()):
            if not waiter.seat.done():
                waiter.seat.set_exception(OverloadedError(reason, retry_after_s=1.0))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _acquire(self, call: Call, excluded: frozenset[str]) -> Lease | None:
        now_s = self._clock.now_s()
        candidates = self._pool.candidates(call.model, call.priority, now_s, excluded)
        if not candidates:
            return None
        chosen = self._policy_of(call.model).choose(call.view, call.price, candidates)
        if chosen is None:
            return None
        return self._pool.acquire(chosen.spec.id, call.priority, call.price.cost_ms, now_s)

    def _pump(self, model: str, queue: FairQueue) -> None:
        now_s = self._clock.now_s()
        for shed in queue.expire(now_s):
            self._refuse(shed)
        while (worst := self._pool.worst_admissible(model, now_s)) is not None:
            ticket = queue.pop(now_s, worst)
            if ticket is None:
                return
            waiter = self._waiters.get(ticket.id)
            if waiter is None or waiter.seat.done():
                continue
            lease = self._acquire(waiter.call, ticket.excluded)
            if lease is None:
                # The class may start, this request may not: it keeps its place in time.
                for shed in queue.push(ticket, now_s):
                    self._refuse(shed)
                return
            del self._waiters[ticket.id]
            waiter.seat.set_result(lease)

    def _refuse(self, shed: Shed) -> None:
        self._on_shed(shed)
        waiter = self._waiters.pop(shed.ticket.id, None)
        if waiter is not None and not waiter.seat.done():
            now_s = self._clock.now_s()
            waiter.seat.set_exception(self._error(shed, now_s))

    def _error(self, shed: Shed, now_s: float) -> OverloadedError:
        waited_s = now_s - shed.ticket.arrival_s
        if shed.reason is not ShedReason.FULL and not self._pool.is_available(shed.ticket.model, now_s):
            return BackendUnavailableError(
                f"no backend of model {shed.ticket.model} takes requests, for {waited_s:.1f} s now; retry later",
                retry_after_s=shed.retry_after_s,
            )
        if shed.reason is ShedReason.EXPIRED:
            return QueueTimeoutError(
                f"the request waited {waited_s:.1f} s and its deadline passed; retry later, or ask for a more urgent class",
                retry_after_s=shed.retry_after_s,
            )
        return OverloadedError(_SHED_TEXTS[shed.reason], retry_after_s=shed.retry_after_s)

    def _forget(self, ticket: Ticket, seat: asyncio.Future[Lease]) -> None:
        """The waiter is gone, whatever it had by then."""
        self._waiters.pop(ticket.id, None)
        self._queue(ticket.model).remove(ticket.id, self._clock.now_s())
        if seat.done() and not seat.cancelled() and seat.exception() is None:
            # Given and cancelled in one turn of the loop.
            self.release(seat.result(), Outcome.CLIENT_GONE)

    def _queue(self, model: str) -> FairQueue:
        queue = self._queues.get(model)
        if queue is None:
            queue = self._queues[model] = FairQueue(self._queue_config, self._clock.now_s())
        return queue

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiters:
            return
        now_s = self._clock.now_s()
        times_s = [now_s + _LOOK_AGAIN_S]
        for model, queue in self._queues.items():
            if len(queue):
                deadline_s, change_s = queue.next_deadline_s(), self._pool.next_change_s(model, now_s)
                times_s += [time_s for time_s in (deadline_s, change_s) if time_s is not None]
        delay_s = max(0.0, min(times_s) - now_s)
        # A deadline is passed once the clock says so, not a rounding before it.
        self._timer = asyncio.get_running_loop().call_later(delay_s + 0.001, self.look)


_SHED_TEXTS = {
    ShedReason.FULL: "the queue is full; retry later",
    ShedReason.EVICTED: "the request gave way to more urgent ones; retry later",
    ShedReason.HOPELESS: "the queue is so long that the request would pass its deadline in it; retry later",
}


def _ticket(call: Call, until_s: float, excluded: frozenset[str]) -> Ticket:
    return Ticket(
        id=call.id,
        model=call.model,
        tenant=call.tenant.id,
        priority=Priority(call.priority),
        cost_ms=call.price.cost_ms,
        arrival_s=call.arrival_s,
        deadline_s=until_s,
        num_bytes=call.view.num_bytes,
        weight=call.tenant.weight,
        excluded=excluded,
    )
