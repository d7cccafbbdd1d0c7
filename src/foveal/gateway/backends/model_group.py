"""The backends of one model, and the slots kept free among them for P0."""

from __future__ import annotations

from collections.abc import Mapping

from foveal.core.priority import Priority
from foveal.gateway.backends.backend import BackendLoad
from foveal.gateway.backends.member import Member
from foveal.gateway.queueing.config import HeadroomConfig
from foveal.gateway.queueing.headroom import Headroom
from foveal.gateway.resilience.config import OutlierConfig
from foveal.gateway.resilience.outliers import slowest_outlier

__all__ = ["ModelGroup"]

RESERVE_FOR_S = 0.25
"""The number of reserved slots is computed again after this time."""
JUDGE_EVERY = 16
"""Requests between two looks for a slow backend."""


class ModelGroup:
    """Slots are reserved over the group, not in each backend: pooled, few of them serve P0 as well as many apart.

    Every request asks this, so what changes seldom (who is well, how many slots) is looked at only after an event
    (`touch`) or when the earliest change by time is due.
    """

    def __init__(self, headroom: HeadroomConfig, now_s: float) -> None:
        self.members: list[Member] = []
        self.headroom = Headroom(headroom, now_s)
        self._weights: Mapping[str, float] = {}
        self._routable: list[Member] = []
        self._num_slots = 0
        self._valid_until_s = float("-inf")
        self._reserved = 0
        self._reserved_until_s = float("-inf")
        self._unjudged = 0

    def add(self, member: Member) -> None:
        self.members.append(member)
        self._apply_weights()

    def remove(self, member: Member) -> None:
        self.members.remove(member)
        self.touch()

    def set_weights(self, weights: Mapping[str, float]) -> None:
        self._weights = dict(weights)
        self._apply_weights()

    def touch(self) -> None:
        """Something happened to a member's health or settings."""
        self._valid_until_s = float("-inf")

    def is_available(self, now_s: float) -> bool:
        """True if a backend takes requests, be it full or not."""
        return bool(self._fresh(now_s))

    def loads(self, now_s: float) -> list[BackendLoad]:
        self._fresh(now_s)
        return [member.load() for member in self.members]

    def candidates(self, priority: Priority, now_s: float, excluded: frozenset[str]) -> tuple[BackendLoad, ...]:
        """Backends with a slot for a request of this class, reservations kept."""
        routable = self._fresh(now_s)
        if priority is Priority.P0:
            loads = [member.load() for member in routable if member.in_flight < member.urgent_slots]
            if len(loads) > 1:
                # A request that cannot wait does not try out a backend that has just failed.
                loads = [load for load in loads if load.share > 0] or loads
        elif self._num_free(routable) <= self._reserved_now(now_s):
            return ()
        else:
            loads = [member.load() for member in routable if member.in_flight < member.slots]
        if excluded:
            loads = [load for load in loads if load.spec.id not in excluded] or loads
        return tuple(loads)

    def worst_admissible(self, now_s: float) -> Priority | None:
        routable = self._fresh(now_s)
        free = self._num_free(routable)
        if free == 0:
            return None
        if free > self._reserved_now(now_s):
            for member in routable:
                if member.in_flight < member.slots:
                    return Priority.P2
        return Priority.P0

    def reserved(self, now_s: float) -> int:
        self._fresh(now_s)
        return self._reserved_now(now_s)

    def next_change_s(self, now_s: float) -> float | None:
        """When somebody who is out may come back by time alone."""
        times = (member.health.next_change_s(now_s) for member in self.members)
        return min((time_s for time_s in times if time_s is not None), default=None)

    def judge_slowness(self, config: OutlierConfig | None, now_s: float) -> None:
        """Eject the backend that is far slower than its peers, now and then."""
        self._unjudged += 1
        if config is None or self._unjudged < JUDGE_EVERY:
            return
        self._unjudged = 0
        num_out = sum(member.health.is_out_for_slowness(now_s) for member in self.members)
        peers = {member.spec.id: member for member in self._fresh(now_s)}
        worst = slowest_outlier({name: member.health.slowness for name, member in peers.items()}, num_out, config)
        for name, member in peers.items():
            if name == worst:
                member.health.eject_slow(now_s)
                self.touch()
            elif member.health.slowness.num_requests >= config.min_requests:
                member.health.praise()

    def _fresh(self, now_s: float) -> list[Member]:
        """Those that take requests and whose version gets traffic."""
        if now_s >= self._valid_until_s:
            self._valid_until_s = min((member.refresh(now_s) for member in self.members), default=float("inf"))
            self._routable = [
                member for member in self.members if member.state.takes_requests and member.version_weight > 0
            ]
            self._num_slots = sum(member.urgent_slots for member in self._routable)
            self._reserved_until_s = float("-inf")
        return self._routable

    @staticmethod
    def _num_free(routable: list[Member]) -> int:
        """Slots that P0 may choose from."""
        free = 0
        for member in routable:
            if member.in_flight < member.urgent_slots:
                free += member.urgent_slots - member.in_flight
        return free

    def _reserved_now(self, now_s: float) -> int:
        if now_s >= self._reserved_until_s:
            self._reserved = self.headroom.slots(self._num_slots, now_s)
            self._reserved_until_s = now_s + RESERVE_FOR_S
        return self._reserved

    def _apply_weights(self) -> None:
        for member in self.members:
            member.version_weight = self._weights.get(member.spec.version, 0.0) if self._weights else 1.0
        self.touch()
