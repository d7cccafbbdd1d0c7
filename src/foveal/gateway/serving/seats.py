"""Waiting for a backend's slot: the dispatcher decides, this wakes whom it chose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from foveal.core.clock import Clock
from foveal.core.errors import BackendUnavailableError, OverloadedError
from foveal.gateway.backends.pool import BackendPool, Lease
from foveal.gateway.queueing.dispatcher import Dispatcher, Grant
from foveal.gateway.queueing.ticket import Shed, ShedReason, Ticket
from foveal.gateway.resilience.outcome import Outcome
from foveal.gateway.serving.call import Call

__all__ = ["QueueTimeoutError", "Seats"]

_LOOK_AGAIN_S = 0.25
"""While somebody waits: a returning backend's share grows without an event."""


class QueueTimeoutError(OverloadedError):
    """The queue's deadline passed."""

    code = "queue_timeout"


class Seats:
    """Lives on one event loop. Every lease it hands out comes back through `release`, exactly once."""

    def __init__(
        self,
        pool: BackendPool,
        dispatcher: Dispatcher,
        clock: Clock,
        on_shed: Callable[[Shed, OverloadedError], None] = lambda shed, error: None,
    ) -> None:
        """`on_shed` hears of everybody who leaves the queue without a seat."""
        self._pool = pool
        self._dispatcher = dispatcher
        self._clock = clock
        self._on_shed = on_shed
        self._waiters: dict[str, asyncio.Future[Lease]] = {}
        self._timer: asyncio.TimerHandle | None = None
        pool.on_change = self._changed

    @property
    def num_waiting(self) -> int:
        return len(self._waiters)

    async def take(self, call: Call, until_s: float, excluded: frozenset[str] = frozenset()) -> Lease:
        """A slot, now or later. Backends in `excluded` (it failed there) are taken only where there is no other.

        Raises OverloadedError (shed), QueueTimeoutError (`until_s` passed), BackendUnavailableError (the same, and no
        backend takes requests; or the model is served no more).
        """
        if call.model not in self._pool.models:
            # Admitted before a reload took the model away. Nobody would look at its queue.
            raise _out_of_service(call.model)
        ticket = _ticket(call, until_s, excluded)
        began_s = self._clock.now_s()
        submitted = self._dispatcher.submit(ticket, call.view, call.price, began_s)
        if submitted.grant is not None:
            return submitted.grant.lease
        seat: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self._waiters[ticket.id] = seat
        try:
            self._refuse(submitted.shed)
            self._set_timer()
            return await seat
        except BaseException:
            self._forget(ticket, seat)
            raise
        finally:
            call.waited_s += self._clock.now_s() - began_s

    def take_another(self, call: Call, excluded: frozenset[str]) -> Lease | None:
        """A second slot for a request that has one: the least loaded of the other backends. None unless one is free at
        once and nobody waits for it."""
        if self._dispatcher.queue(call.model).waits_before(call.priority):
            return None
        now_s = self._clock.now_s()
        free = self._pool.candidates(call.model, call.priority, now_s, excluded)
        others = [load for load in free if load.spec.id not in excluded]
        if not others:
            return None
        chosen = min(others, key=lambda load: load.outstanding_ms / load.slots)
        return self._pool.acquire(chosen.spec.id, call.priority, call.price.cost_ms, now_s)

    def release(self, lease: Lease, outcome: Outcome, first_byte_s: float | None = None) -> None:
        """Give a slot back, and let the next one in. `first_byte_s`: from sending the request to the first byte."""
        lease.release(outcome, self._clock.now_s(), first_byte_s)

    def look(self) -> None:
        """Let in whoever can start now. Call it when a backend's state may have changed."""
        for model in self._pool.models:
            self._pump(model)
        self._set_timer()

    def close(self, reason: str) -> None:
        """Refuse everybody who waits."""
        for seat in self._waiters.values():
            if not seat.done():
                seat.set_exception(OverloadedError(reason, retry_after_s=1.0))
        self._set_timer()

    def drop_model(self, model: str) -> None:
        """The model is no longer served."""
        for ticket in self._dispatcher.close(model, self._clock.now_s()):
            seat = self._waiters.pop(ticket.id, None)
            if seat is not None and not seat.done():
                seat.set_exception(_out_of_service(model))

    def _changed(self, model: str) -> None:
        if self._waiters:
            self._pump(model)

    def _pump(self, model: str) -> None:
        pumped = self._dispatcher.pump(model, self._clock.now_s())
        self._refuse(pumped.shed)
        for grant in pumped.grants:
            self._give(grant)

    def _give(self, grant: Grant) -> None:
        seat = self._waiters.pop(grant.ticket.id, None)
        if seat is None or seat.done():
            self.release(grant.lease, Outcome.CLIENT_GONE)
        else:
            seat.set_result(grant.lease)

    def _refuse(self, sheds: Iterable[Shed]) -> None:
        for shed in sheds:
            error = self._error(shed)
            self._on_shed(shed, error)
            seat = self._waiters.pop(shed.ticket.id, None)
            if seat is not None and not seat.done():
                seat.set_exception(error)

    def _error(self, shed: Shed) -> OverloadedError:
        now_s = self._clock.now_s()
        waited_s = now_s - shed.ticket.arrival_s
        if not self._pool.is_available(shed.ticket.model, now_s):
            return BackendUnavailableError(
                f"no backend of model {shed.ticket.model} takes requests, and the request waited {waited_s:.1f} s for one; "
                "retry later",
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
        self._dispatcher.cancel(ticket, self._clock.now_s())
        if seat.done() and not seat.cancelled() and seat.exception() is None:
            # Given and cancelled in one turn of the loop.
            self.release(seat.result(), Outcome.CLIENT_GONE)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiters:
            return
        now_s = self._clock.now_s()
        wakes_s = (self._dispatcher.next_wake_s(model, now_s) for model in self._pool.models)
        wake_s = min((at_s for at_s in wakes_s if at_s is not None), default=now_s + _LOOK_AGAIN_S)
        delay_s = min(max(0.0, wake_s - now_s), _LOOK_AGAIN_S)
        # A deadline has passed once the clock says so, not a rounding before it.
        self._timer = asyncio.get_running_loop().call_later(delay_s + 0.001, self.look)


_SHED_TEXTS = {
    ShedReason.FULL: "the queue is full; retry later",
    ShedReason.EVICTED: "the request gave way to more urgent ones; retry later",
    ShedReason.HOPELESS: "the queue is so long that the request would pass its deadline in it; retry later",
}


def _out_of_service(model: str) -> BackendUnavailableError:
    return BackendUnavailableError(f"model {model} was just taken out of service", retry_after_s=5.0)


def _ticket(call: Call, until_s: float, excluded: frozenset[str]) -> Ticket:
    return Ticket(
        id=call.id,
        model=call.model,
        tenant=call.tenant.id,
        priority=call.priority,
        cost_ms=call.price.cost_ms,
        arrival_s=call.arrival_s,
        deadline_s=until_s,
        num_bytes=call.view.num_bytes,
        weight=call.tenant.weight,
        excluded=excluded,
    )
