"""The waiting requests of one priority class, fair between tenants."""

from __future__ import annotations

from collections import OrderedDict
from heapq import nlargest

from foveal.gateway.queueing.priority_map import PriorityMap
from foveal.gateway.queueing.ticket import Ticket

__all__ = ["ClassLine"]

REMEMBERED = 1024
"""Tenants without waiting requests whose virtual time is remembered at most, when it is tidied up."""


class _TenantLine:
    __slots__ = ("cost_ms", "tickets", "weight")

    def __init__(self) -> None:
        self.tickets: OrderedDict[str, Ticket] = OrderedDict()
        self.cost_ms = 0.0
        self.weight = 1.0


class ClassLine:
    """Start-time fair queueing over tenants: the tenant that had least cost per weight is next, oldest request first.

    Cost is charged when a request leaves for a backend, so one that is removed costs its tenant nothing. Between two
    tenants that both wait all the time, the service each had per weight never differs by more than one request of
    each. A tenant that comes back from idling starts level with the others: idling saves nothing up.
    Source: Goyal, Vin, Cheng, "Start-time Fair Queuing", 1996.
    """

    def __init__(self) -> None:
        self._lines: dict[str, _TenantLine] = {}
        self._virtual_ms: dict[str, float] = {}
        self._forget_at = REMEMBERED
        self._now_ms = 0.0
        """Virtual time: cost per weight of the tenant served last, before it was charged."""
        self._by_virtual: PriorityMap[str] = PriorityMap()
        self._by_backlog: PriorityMap[str] = PriorityMap()
        self._by_age: PriorityMap[Ticket] = PriorityMap()
        self.cost_ms = 0.0
        """Sum of the prices of all that wait."""
        self.weight = 0.0
        """Sum of the weights of tenants that wait."""

    def __len__(self) -> int:
        return len(self._by_age)

    def add(self, ticket: Ticket) -> None:
        line = self._lines.get(ticket.tenant)
        if line is None:
            line = self._lines[ticket.tenant] = _TenantLine()
            line.weight = ticket.weight
            self.weight += ticket.weight
            virtual_ms = max(self._virtual_ms.get(ticket.tenant, 0.0), self._now_ms)
            self._virtual_ms[ticket.tenant] = virtual_ms
            self._by_virtual.set(ticket.tenant, virtual_ms)
        elif line.weight != ticket.weight:  # the operator changed it
            self.weight += ticket.weight - line.weight
            line.weight = ticket.weight
        line.tickets[ticket.id] = ticket
        line.cost_ms += ticket.cost_ms
        self.cost_ms += ticket.cost_ms
        self._by_age.set(ticket, ticket.arrival_s)
        self._by_backlog.set(ticket.tenant, -line.cost_ms / line.weight)

    def peek(self) -> Ticket:
        """The next request. Raises IndexError if nobody waits."""
        first = self._by_virtual.first()
        if first is None:
            raise IndexError("an empty line has no next request")
        return next(iter(self._lines[first[1]].tickets.values()))

    def pop(self) -> Ticket:
        """The next request, charged to its tenant. Raises IndexError if nobody waits."""
        ticket = self.peek()
        virtual_ms = self._virtual_ms[ticket.tenant]
        self._now_ms = max(self._now_ms, virtual_ms)
        self._virtual_ms[ticket.tenant] = charged_ms = virtual_ms + ticket.cost_ms / ticket.weight
        self._by_virtual.set(ticket.tenant, charged_ms)
        self.remove(ticket)
        return ticket

    def remove(self, ticket: Ticket) -> None:
        """Raises KeyError if it does not wait here."""
        line = self._lines[ticket.tenant]
        del line.tickets[ticket.id]
        self._by_age.discard(ticket)
        line.cost_ms -= ticket.cost_ms
        self.cost_ms -= ticket.cost_ms
        if line.tickets:
            self._by_backlog.set(ticket.tenant, -line.cost_ms / line.weight)
            return
        del self._lines[ticket.tenant]
        self.weight -= line.weight
        self._by_virtual.discard(ticket.tenant)
        self._by_backlog.discard(ticket.tenant)
        if not self._lines:
            self.cost_ms = self.weight = 0.0  # sums of floats drift
            self._virtual_ms.clear()  # who was served without anybody waiting owes nothing
        elif len(self._virtual_ms) > self._forget_at:
            self._forget()

    def settle(self, ticket: Ticket, extra_ms: float) -> None:
        """A request that left cost `extra_ms` more than its price (less, if negative): its tenant bears the difference."""
        virtual_ms = self._virtual_ms.get(ticket.tenant)
        if virtual_ms is None:
            return
        virtual_ms = max(0.0, virtual_ms + extra_ms / ticket.weight)
        self._virtual_ms[ticket.tenant] = virtual_ms
        if ticket.tenant in self._lines:
            self._by_virtual.set(ticket.tenant, virtual_ms)

    def oldest(self) -> Ticket | None:
        first = self._by_age.first()
        return None if first is None else first[1]

    def backlog_ms(self, tenant: str) -> float:
        line = self._lines.get(tenant)
        return 0.0 if line is None else line.cost_ms

    def heaviest(self) -> tuple[float, Ticket] | None:
        """(waiting cost per weight, newest request) of the tenant that holds most of this class; None if empty."""
        first = self._by_backlog.first()
        if first is None:
            return None
        return -first[0], next(reversed(self._lines[first[1]].tickets.values()))

    def _forget(self) -> None:
        """Who is not ahead of virtual time starts at virtual time anyway; of the others those furthest ahead matter."""
        ahead = [(ms, tenant) for tenant, ms in self._virtual_ms.items() if tenant not in self._lines]
        kept = {tenant: ms for ms, tenant in nlargest(REMEMBERED, ahead) if ms > self._now_ms}
        self._virtual_ms = kept | {tenant: self._virtual_ms[tenant] for tenant in self._lines}
        self._forget_at = 2 * len(self._virtual_ms) + REMEMBERED
