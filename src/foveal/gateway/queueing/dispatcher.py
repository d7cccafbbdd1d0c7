"""Queue, slots and routing of all models as one decision: who starts now, and where."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from foveal.core.priority import Priority
from foveal.gateway.backends.backend import BackendLoad
from foveal.gateway.backends.pool import BackendPool, Lease
from foveal.gateway.pricing.price import Price
from foveal.gateway.queueing.config import QueueConfig
from foveal.gateway.queueing.fair_queue import FairQueue
from foveal.gateway.queueing.ticket import Shed, Ticket
from foveal.gateway.request.view import RequestView
from foveal.gateway.routing.policy import RoutingPolicy

__all__ = ["Dispatcher", "Grant", "Pumped", "Submitted"]


class Grant(msgspec.Struct, frozen=True):
    """`ticket` may start now, at `lease.backend`. Whoever gets it must release the lease."""

    ticket: Ticket
    lease: Lease


class Submitted(msgspec.Struct, frozen=True):
    grant: Grant | None
    """The request may start; None if it waits or was refused."""
    shed: list[Shed]
    """Who must leave; the request itself is among them if it was refused."""


class Pumped(msgspec.Struct, frozen=True):
    grants: list[Grant]
    shed: list[Shed]


class Dispatcher:
    """Pure bookkeeping without I/O or clock: the gateway and the simulation run the same code.

    Call `pump` when a lease was released, when `BackendPool.on_change` says so, and at `next_wake_s`.
    """

    def __init__(
        self, pool: BackendPool, policy_of: Callable[[str], RoutingPolicy], config: QueueConfig, now_s: float
    ) -> None:
        """`policy_of(model)` is that model's routing policy, always the same one until a reload."""
        self._pool = pool
        self._policy_of = policy_of
        self._config = config
        self._start_s = now_s
        self._queues: dict[str, FairQueue] = {}
        self._waiting: dict[str, tuple[float, RequestView, Price]] = {}
        """Ticket -> when it was queued (a request that is tried again is older), and what routing wants to know."""

    def __len__(self) -> int:
        """Requests that wait, over all models."""
        return len(self._waiting)

    def queue(self, model: str) -> FairQueue:
        """The model's queue, for its figures."""
        queue = self._queues.get(model)
        if queue is None:
            queue = self._queues[model] = FairQueue(self._config, self._start_s)
        return queue

    def submit(self, ticket: Ticket, request: RequestView, price: Price, now_s: float) -> Submitted:
        """A new request, or one that is tried again. Raises ValueError if that ticket waits already."""
        if ticket.priority is Priority.P0:
            self._pool.on_urgent_arrival(ticket.model, now_s)
        queue = self.queue(ticket.model)
        if not queue.waits_before(ticket.priority):
            grant = self._start(ticket, request, price, now_s)
            if grant is not None:
                if queue:
                    self._note_urgent(ticket, 0.0)
                return Submitted(grant, [])
        shed = queue.push(ticket, now_s)
        for left in shed:
            self._waiting.pop(left.ticket.id, None)
        if ticket.id in queue:
            self._waiting[ticket.id] = (now_s, request, price)
        return Submitted(None, shed)

    def pump(self, model: str, now_s: float) -> Pumped:
        """Take out who waited too long, then start as many as there is room for."""
        queue = self._queues.get(model)
        if not queue:
            return Pumped([], [])
        shed = queue.expire(now_s)
        for left in shed:
            queued_s, _, _ = self._waiting.pop(left.ticket.id)
            self._note_urgent(left.ticket, now_s - queued_s)
        grants: list[Grant] = []
        while queue:
            worst = self._pool.worst_admissible(model, now_s)
            ticket = None if worst is None else queue.pop(now_s, worst)
            if ticket is None:
                break
            queued_s, request, price = self._waiting.pop(ticket.id)
            grant = self._start(ticket, request, price, now_s)
            if grant is None:  # cannot be: there is room for its class
                raise RuntimeError(f"model {model} had room for {ticket.priority.name}, but no backend was chosen")
            self._note_urgent(ticket, now_s - queued_s)
            grants.append(grant)
        return Pumped(grants, shed)

    def cancel(self, ticket: Ticket, now_s: float) -> bool:
        """The client of a waiting request is gone. False if it does not wait."""
        self._waiting.pop(ticket.id, None)
        queue = self._queues.get(ticket.model)
        return queue is not None and queue.remove(ticket.id, now_s) is not None

    def settle(self, ticket: Ticket, actual_ms: float) -> None:
        """What a started request really cost; its tenant bears the difference to the price."""
        queue = self._queues.get(ticket.model)
        if queue is not None:
            queue.settle(ticket, actual_ms)

    def reload(self, config: QueueConfig) -> None:
        """New limits from now on. Who waits already stays, even above a lower limit."""
        self._config = config
        for queue in self._queues.values():
            queue.reload(config)

    def close(self, model: str, now_s: float) -> list[Ticket]:
        """Drop a model's queue. Returns who waited."""
        queue = self._queues.pop(model, None)
        if queue is None:
            return []
        left = queue.clear(now_s)
        for ticket in left:
            del self._waiting[ticket.id]
        return left

    def next_wake_s(self, model: str, now_s: float) -> float | None:
        """When to pump although nothing happened: a deadline passes, or a backend may be tried again."""
        queue = self._queues.get(model)
        if not queue:
            return None
        times = (queue.next_deadline_s(), self._pool.next_change_s(model, now_s))
        return min((time_s for time_s in times if time_s is not None), default=None)

    def _note_urgent(self, ticket: Ticket, waited_s: float) -> None:
        if ticket.priority is Priority.P0:
            self._pool.on_urgent_start(ticket.model, waited_s)

    def _start(self, ticket: Ticket, request: RequestView, price: Price, now_s: float) -> Grant | None:
        candidates = self._pool.candidates(ticket.model, ticket.priority, now_s, ticket.excluded)
        if len(candidates) == 1:
            chosen: BackendLoad | None = candidates[0]
        else:
            chosen = self._policy_of(ticket.model).choose(request, price, candidates)
        if chosen is None:
            return None
        return Grant(ticket, self._pool.acquire(chosen.spec.id, ticket.priority, ticket.cost_ms, now_s))
