"""How many slots stay free for P0. Backends do not preempt, so its 100 ms can only be kept by free slots."""

from __future__ import annotations

from math import exp, log

from foveal.core.priority import Priority
from foveal.gateway.queueing.config import HeadroomConfig
from foveal.gateway.queueing.rate_meter import RateMeter

__all__ = ["Headroom", "miss_fraction", "slots_needed"]

FAST_S = 10.0
SLOW_S = 60.0
SETTLE_S = 5.0
TRIM_SLOTS = 0.25
"""Slots that one late P0 request adds."""


def miss_fraction(num_free: int, urgent_per_s: float, releases_per_s: float, wait_s: float) -> float:
    """Part of P0 requests that wait longer than `wait_s` when other classes leave `num_free` slots free.

    With all other slots taken, the free ones are a queue of their own: P0 arrivals take them, every release (of
    whatever class) gives one back, because no other class may start before all are free again. That is M/M/1 with
    load p = urgent/releases, where P(wait > t) = p^num_free * exp(-(releases - urgent) * t).
    Source: trunk reservation (guard channels) in telephony; Kleinrock, Queueing Systems I, sec. 3.2.
    """
    if urgent_per_s <= 0:
        return 0.0
    if releases_per_s <= urgent_per_s:
        return 1.0
    return (urgent_per_s / releases_per_s) ** num_free * exp(-(releases_per_s - urgent_per_s) * wait_s)


def slots_needed(urgent_per_s: float, releases_per_s: float, wait_s: float, miss: float) -> float | None:
    """Free slots with which `miss_fraction` is `miss`, a fraction being part of the time; None if none suffice.

    Rates are per second, over all backends of the model when they are busy.
    """
    if urgent_per_s <= 0:
        return 0.0
    if releases_per_s <= urgent_per_s:
        return None
    missing = log(1.0 / miss) - (releases_per_s - urgent_per_s) * wait_s
    return max(0.0, missing / log(releases_per_s / urgent_per_s))


class Headroom:
    """Says how many slots of one model to keep free: the model above with measured rates, trimmed by what happens.

    The trim is a quantile tracker: each P0 request that waited too long adds a slot, each that did not takes a little
    away, in a proportion that settles at `miss_fraction`. So arrivals in bursts, or service times that are far from
    exponential, get what they need, and quiet ones do not waste slots.
    """

    def __init__(self, config: HeadroomConfig, now_s: float) -> None:
        self._config = config
        self._fast = RateMeter(FAST_S, now_s, SETTLE_S)
        self._slow = RateMeter(SLOW_S, now_s, SETTLE_S)
        self._work_fast = RateMeter(FAST_S, now_s, SETTLE_S)
        self._work_slow = RateMeter(SLOW_S, now_s, SETTLE_S)
        self._releases = RateMeter(SLOW_S, now_s)
        self._slot_s = RateMeter(SLOW_S, now_s)
        self._trim = 0.0
        self._needed = 0.0
        self._limit = 0
        self._remainder = 0.0

    def reload(self, config: HeadroomConfig) -> None:
        """New settings; measured rates stay."""
        self._config = config

    def on_urgent_arrival(self, now_s: float) -> None:
        self._fast.add(1.0, now_s)
        self._slow.add(1.0, now_s)

    def on_urgent_start(self, waited_s: float) -> None:
        """A P0 request got its slot (or gave up) after `waited_s`, while others waited for one: only then does the
        number of free slots show."""
        miss = self._config.miss_fraction
        late = waited_s > self._config.safety * Priority.P0.deadline_s
        self._trim += TRIM_SLOTS * ((1.0 - miss) if late else -miss)
        self._trim = min(max(self._trim, -self._needed), max(0.0, self._limit - self._needed))

    def on_release(self, priority: Priority, held_s: float, now_s: float) -> None:
        """A request gave its slot back after `held_s` seconds."""
        self._releases.add(1.0, now_s)
        self._slot_s.add(held_s, now_s)
        if priority == Priority.P0:
            self._work_fast.add(held_s, now_s)
            self._work_slow.add(held_s, now_s)

    def mean_service_s(self, now_s: float) -> float | None:
        """Mean time a request holds a slot; None before the first release."""
        releases = self._releases.rate(now_s)
        return self._slot_s.rate(now_s) / releases if releases > 0 else None

    def slots(self, num_slots: int, now_s: float) -> int:
        """Slots to keep free of `num_slots` (all that P0 may use) until the next call."""
        config = self._config
        limit = int(num_slots * config.max_fraction)
        service_s = self.mean_service_s(now_s)
        if service_s is None or service_s <= 0:  # nothing known: one slot
            return min(1, limit) if config.assumed_share > 0 else 0
        releases_per_s = num_slots / service_s
        urgent_slots = min(self._work_fast.rate(now_s), self._work_slow.rate(now_s))
        if urgent_slots > config.promised_share * num_slots:
            return 0
        urgent_per_s = max(self._recent(now_s), config.assumed_share * releases_per_s)
        urgent_per_s = min(urgent_per_s, config.promised_share * releases_per_s)
        wait_s = config.safety * Priority.P0.deadline_s
        needed = slots_needed(urgent_per_s, releases_per_s, wait_s, config.miss_fraction)
        self._limit = limit
        self._needed = limit if needed is None else min(needed, limit)
        # A fraction of a slot is a slot for that fraction of the time.
        wanted = min(max(0.0, self._needed + self._trim), limit) + self._remainder
        self._remainder = wanted - int(wanted)
        return int(wanted)

    def _recent(self, now_s: float) -> float:
        """P0 arrivals per second. The faster of two windows: quick to rise, slow to fall."""
        return max(self._slow.rate(now_s), self._fast.rate(now_s))
