"""How long a request would wait, from what was measured."""

from __future__ import annotations

from foveal.core.priority import Priority
from foveal.gateway.queueing.class_line import ClassLine
from foveal.gateway.queueing.config import QueueConfig
from foveal.gateway.queueing.rate_meter import RateMeter
from foveal.gateway.queueing.ticket import Ticket

__all__ = ["WaitForecast", "ageing_of"]

WINDOW_S = 10.0
LEARNT_AFTER_S = 0.5
"""Seconds of waiting seen before the drain rate is believed."""

PROMISED_PART = 0.7
"""Part of the drain rate that is promised to those who return; the rest is for those who come for the first time."""


def ageing_of(ticket: Ticket, config: QueueConfig) -> float:
    """Seconds after which its class rises by one, if it is the oldest: the class must be able to rise to the top before
    the request is given up."""
    return min(config.ageing_s, (ticket.deadline_s - ticket.arrival_s) / (ticket.priority + 1))


class WaitForecast:
    """The drain rate is measured only while somebody waits: else it would be the arrival rate.

    Cost is in Price.cost_ms, so rates are in ms of backend time per second; whether prices are right does not matter
    for the forecast, as the same prices are on both sides.
    """

    def __init__(self, config: QueueConfig, now_s: float) -> None:
        self._config = config
        self._waiting_s = 0.0
        self._last_s = now_s
        self._drain = RateMeter(WINDOW_S, 0.0)
        self._arrivals = {priority: RateMeter(WINDOW_S, now_s) for priority in Priority}
        self._promised_s = dict.fromkeys(Priority, 0.0)

    def reload(self, config: QueueConfig) -> None:
        self._config = config

    def advance(self, now_s: float, somebody_waits: bool) -> None:
        """Call before each change of the queue."""
        if somebody_waits:
            self._waiting_s += max(0.0, now_s - self._last_s)
        self._last_s = max(now_s, self._last_s)

    def on_arrival(self, ticket: Ticket, now_s: float) -> None:
        self._arrivals[ticket.priority].add(ticket.cost_ms, now_s)

    def on_start(self, ticket: Ticket) -> None:
        """A waiting request went to a backend."""
        self._drain.add(ticket.cost_ms, self._waiting_s)

    def drain_ms_per_s(self) -> float | None:
        """Cost that leaves the queue per second while somebody waits; None if not yet known."""
        if self._drain.seen_s(self._waiting_s) < LEARNT_AFTER_S:
            return None
        return self._drain.rate(self._waiting_s)

    def wait_s(self, ticket: Ticket, lines: dict[Priority, ClassLine], now_s: float) -> float | None:
        """Expected wait of `ticket` if it joined now; None if nothing is known yet.

        Ahead of it: all of the more urgent classes, and of its own class what fair sharing serves before it; more
        urgent requests that arrive meanwhile take their part of the rate. If that leaves nothing, its class still
        rises by age and then has its share.
        """
        total = self.drain_ms_per_s()
        if total is None:
            return None
        better_ms = sum(line.cost_ms for priority, line in lines.items() if priority < ticket.priority)
        own = lines[ticket.priority]
        mine_ms = own.backlog_ms(ticket.tenant)
        others = own.weight - (ticket.weight if mine_ms else 0.0)
        own_ms = min(own.cost_ms, mine_ms + (mine_ms + ticket.cost_ms) * others / ticket.weight)
        if better_ms + own_ms <= 0:
            return 0.0
        by_class_s = _seconds(better_ms + own_ms, total - self._better_rate(ticket.priority, now_s))
        oldest = own.oldest()
        risen_s = 0.0 if oldest is None else now_s - oldest.arrival_s
        rise_s = max(0.0, ticket.priority * ageing_of(ticket, self._config) - risen_s)
        return min(by_class_s, rise_s + _seconds(own_ms, total * self._config.aged_share))

    def promise_s(self, ticket: Ticket, expected_s: float | None, now_s: float) -> float:
        """Retry-After for a request that is refused now.

        Each refusal promises the next free piece of time, so that those refused do not all return at once.
        """
        config = self._config
        rate = self._rate_for(ticket.priority, now_s)
        if rate is None or rate <= 0:
            return config.min_retry_after_s if rate is None else config.max_retry_after_s
        # Room for it is there once the line is short enough for its own patience.
        patience_s = ticket.deadline_s - ticket.arrival_s
        earliest_s = now_s + max(0.0, (expected_s or 0.0) - patience_s)
        promised_s = max(earliest_s, self._promised_s[ticket.priority])
        promised_s += ticket.cost_ms / (rate * PROMISED_PART)
        promised_s = min(promised_s, now_s + config.max_retry_after_s)
        self._promised_s[ticket.priority] = promised_s
        # Clamped again: the difference of two times is not exact.
        return min(max(config.min_retry_after_s, promised_s - now_s), config.max_retry_after_s)

    def _rate_for(self, priority: Priority, now_s: float) -> float | None:
        total = self.drain_ms_per_s()
        if total is None:
            return None
        return max(total - self._better_rate(priority, now_s), total * self._config.aged_share)

    def _better_rate(self, priority: Priority, now_s: float) -> float:
        """Cost per second that more urgent classes bring."""
        return sum(meter.rate(now_s) for better, meter in self._arrivals.items() if better < priority)


def _seconds(cost_ms: float, ms_per_s: float) -> float:
    if cost_ms <= 0:
        return 0.0
    return cost_ms / ms_per_s if ms_per_s > 0 else float("inf")
