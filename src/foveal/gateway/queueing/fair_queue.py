"""Who of the waiting goes next, who must leave, and what those are told."""

from __future__ import annotations

from foveal.core.priority import Priority, effective_priority
from foveal.gateway.queueing.class_line import ClassLine
from foveal.gateway.queueing.config import QueueConfig
from foveal.gateway.queueing.priority_map import PriorityMap
from foveal.gateway.queueing.ticket import Shed, ShedReason, Ticket
from foveal.gateway.queueing.wait_forecast import WaitForecast, ageing_of

__all__ = ["FairQueue"]

ROUNDING_MS = 1e-6


class FairQueue:
    """The queue of one model. Strict classes with bounded ageing; fair between the tenants of a class. O(log n).

    Time is an argument and must not go back. Nothing here waits or wakes anybody.
    """

    def __init__(self, config: QueueConfig, now_s: float = 0.0) -> None:
        self._config = config
        self._lines = {priority: ClassLine() for priority in Priority}
        self._tickets: dict[str, Ticket] = {}
        self._by_deadline: PriorityMap[str] = PriorityMap()
        self._forecast = WaitForecast(config, now_s)
        self._aged_credit_ms = dict.fromkeys(Priority, 0.0)
        self.num_bytes = 0
        """Bodies of all that wait."""

    def __len__(self) -> int:
        return len(self._tickets)

    def __contains__(self, ticket_id: str) -> bool:
        return ticket_id in self._tickets

    @property
    def cost_ms(self) -> float:
        """Prices of all that wait."""
        return sum(line.cost_ms for line in self._lines.values())

    def length(self, priority: Priority) -> int:
        return len(self._lines[priority])

    def class_cost_ms(self, priority: Priority) -> float:
        """Prices of a class's waiting requests."""
        return self._lines[priority].cost_ms

    def reload(self, config: QueueConfig) -> None:
        """New limits from now on. Who waits already stays."""
        self._config = config
        self._forecast.reload(config)

    def waits_before(self, priority: Priority) -> bool:
        """True if somebody of this class or a more urgent one waits: a newcomer must not pass them."""
        if not self._tickets:
            return False
        return any(len(line) for better, line in self._lines.items() if better <= priority)

    def push(self, ticket: Ticket, now_s: float) -> list[Shed]:
        """Let `ticket` wait. Returns who must leave for it, or the ticket itself if it is refused; else nothing.

        Raises ValueError if a ticket of that id waits already.
        """
        if ticket.id in self._tickets:
            raise ValueError(f"request {ticket.id} waits already")
        self._forecast.advance(now_s, bool(self._tickets))
        self._forecast.on_arrival(ticket, now_s)
        expected_s = self.expected_wait_s(ticket, now_s)
        if self._config.shed_hopeless and expected_s is not None and now_s + expected_s > ticket.deadline_s:
            return [self._shed(ticket, ShedReason.HOPELESS, now_s)]
        evicted = self._make_room(ticket)
        if evicted is None:
            return [self._shed(ticket, ShedReason.FULL, now_s)]
        self._add(ticket)
        return [self._shed(victim, ShedReason.EVICTED, now_s) for victim in evicted]

    def pop(self, now_s: float, worst: Priority = Priority.P2) -> Ticket | None:
        """The next to start among classes up to `worst`; None if none of them waits. Call `expire` before it."""
        waiting = [(priority, line) for priority, line in self._lines.items() if priority <= worst and len(line)]
        if not waiting:
            return None
        self._forecast.advance(now_s, True)
        ticket = self._choose_line(waiting, now_s).pop()
        self._forget(ticket)
        self._forecast.on_start(ticket)
        return ticket

    def expire(self, now_s: float) -> list[Shed]:
        """Take out all whose deadline has passed."""
        expired = []
        while (first := self._by_deadline.first()) is not None and first[0] <= now_s:
            self._forecast.advance(now_s, True)
            ticket = self._tickets[first[1]]
            self._take_out(ticket)
            expired.append(self._shed(ticket, ShedReason.EXPIRED, now_s))
        return expired

    def remove(self, ticket_id: str, now_s: float) -> Ticket | None:
        """The client is gone. None if it does not wait (any more)."""
        ticket = self._tickets.get(ticket_id)
        if ticket is not None:
            self._forecast.advance(now_s, True)
            self._take_out(ticket)
        return ticket

    def clear(self, now_s: float) -> list[Ticket]:
        """Take out everybody: the gateway stops, or the model is gone."""
        everybody = list(self._tickets.values())
        for ticket in everybody:
            self.remove(ticket.id, now_s)
        return everybody

    def settle(self, ticket: Ticket, actual_ms: float) -> None:
        """What a request that left the queue really cost: its tenant bears the difference to the price."""
        self._lines[ticket.priority].settle(ticket, actual_ms - ticket.cost_ms)

    def next_deadline_s(self) -> float | None:
        """When `expire` has work next."""
        first = self._by_deadline.first()
        return None if first is None else first[0]

    def expected_wait_s(self, ticket: Ticket, now_s: float) -> float | None:
        """Wait of `ticket` if it joined now, from the measured drain rate; None if that is not known yet."""
        return self._forecast.wait_s(ticket, self._lines, now_s)

    def _choose_line(self, waiting: list[tuple[Priority, ClassLine]], now_s: float) -> ClassLine:
        """The most urgent class, unless age has lifted another above it and that one has not had its share."""
        best, best_line = waiting[0]
        if len(waiting) == 1:
            return best_line
        best_key = self._age_key(best_line, now_s)
        aged = [(priority, line) for priority, line in waiting[1:] if self._age_key(line, now_s) < best_key]
        if not aged:
            return best_line
        chosen, line = best, best_line
        for priority, aged_line in aged:
            if self._aged_credit_ms[priority] >= -ROUNDING_MS:
                chosen, line = priority, aged_line
                break
        cost_ms = line.peek().cost_ms
        share = self._config.aged_share
        for priority, _ in aged:
            earned_ms = self._aged_credit_ms[priority] + share * cost_ms
            self._aged_credit_ms[priority] = earned_ms - cost_ms if priority is chosen else min(0.0, earned_ms)
        return line

    def _age_key(self, line: ClassLine, now_s: float) -> tuple[int, float]:
        oldest = line.oldest()
        assert oldest is not None
        ageing_s = ageing_of(oldest, self._config)
        return effective_priority(oldest.priority, now_s - oldest.arrival_s, ageing_s), oldest.arrival_s

    def _make_room(self, ticket: Ticket) -> list[Ticket] | None:
        """Take out whoever must leave for `ticket`, the least urgent first; None (and no change) if it is the one."""
        victims: list[Ticket] = []
        while not self._fits(ticket):
            victim = self._victim(ticket)
            if victim is None:
                for restored in reversed(victims):
                    self._add(restored)
                return None
            self._take_out(victim)
            victims.append(victim)
        return victims

    def _fits(self, ticket: Ticket) -> bool:
        config = self._config
        return (
            len(self._tickets) < config.max_requests
            and self.num_bytes + ticket.num_bytes <= config.max_bytes
            and (not self._tickets or self.cost_ms + ticket.cost_ms <= config.max_cost_ms)
        )

    def _victim(self, ticket: Ticket) -> Ticket | None:
        """The newest request of the tenant that holds most of the least urgent class."""
        for priority in reversed(Priority):
            if priority < ticket.priority:
                return None
            heaviest = self._lines[priority].heaviest()
            if heaviest is None:
                continue
            held_ms, victim = heaviest
            if priority > ticket.priority:
                return victim
            mine_ms = (self._lines[priority].backlog_ms(ticket.tenant) + ticket.cost_ms) / ticket.weight
            return victim if held_ms > mine_ms else None
        return None

    def _shed(self, ticket: Ticket, reason: ShedReason, now_s: float) -> Shed:
        return Shed(ticket, reason, self._forecast.promise_s(ticket, self.expected_wait_s(ticket, now_s), now_s))

    def _add(self, ticket: Ticket) -> None:
        self._lines[ticket.priority].add(ticket)
        self._tickets[ticket.id] = ticket
        self._by_deadline.set(ticket.id, ticket.deadline_s)
        self.num_bytes += ticket.num_bytes

    def _take_out(self, ticket: Ticket) -> None:
        self._lines[ticket.priority].remove(ticket)
        self._forget(ticket)

    def _forget(self, ticket: Ticket) -> None:
        del self._tickets[ticket.id]
        self._by_deadline.discard(ticket.id)
        self.num_bytes -= ticket.num_bytes
