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
    """Slots are reserved over the group, not in each backend: pooled, few of them serve P0 as well as many apart."""

    def __init__(self, headroom: HeadroomConfig, now_s: float) -> None:
        self.members: list[Member] = []
        self.headroom = Headroom(headroom, now_s)
        self._weights: Mapping[str, float] = {}
        self._reserved = 0
        self._reserved_for: tuple[int, float] = (-1, now_s)
        self._unjudged = 0

    def add(self, member: Member) -> None:
        self.members.append(member)
        self._apply_weights()

    def remove(self, member: Member) -> None:
        self.members.remove(member)

    def set_weights(self, weights: Mapping[str, float]) -> None:
        self._weights = dict(weights)
        self._apply_weights()

    def loads(self, now_s: float) -> list[BackendLoad]:
        return [member.load(now_s) for member in self.members]

    def candidates(self, priority: Priority, now_s: float, excluded: frozenset[str]) -> tuple[BackendLoad, ...]:
        """Backends with a slot for a request of this class, reservations kept."""
        loads = self._routable(now_s)
        if priority != Priority.P0 and self._num_free(loads) <= self._reserved_of(loads, now_s):
            return ()
        with_room = tuple(load for load in loads if load.free(priority) > 0)
        if priority == Priority.P0 and len(with_room) > 1:
            # A request that cannot wait does not try out a backend that has just failed.
            with_room = tuple(load for load in with_room if load.share > 0) or with_room
        if not excluded:
            return with_room
        return tuple(load for load in with_room if load.spec.id not in excluded) or with_room

    def worst_admissible(self, now_s: float) -> Priority | None:
        loads = self._routable(now_s)
        free = self._num_free(loads)
        if free == 0:
            return None
        if free > self._reserved_of(loads, now_s) and any(load.free(Priority.P2) for load in loads):
            return Priority.P2
        return Priority.P0

    def reserved(self, now_s: float) -> int:
        return self._reserved_of(self._routable(now_s), now_s)

    def expected_urgent_miss(self, now_s: float) -> float:
        loads = self._routable(now_s)
        total = sum(load.urgent_slots for load in loads)
        beyond = total - sum(load.slots for load in loads)
        return self.headroom.expected_miss(total, max(beyond, self._reserved_of(loads, now_s)), now_s)

    def next_change_s(self, now_s: float) -> float | None:
        times = (member.health.next_change_s(now_s) for member in self.members)
        return min((time_s for time_s in times if time_s is not None), default=None)

    def judge_slowness(self, config: OutlierConfig | None, now_s: float) -> None:
        """Eject the backend that is far slower than its peers, now and then."""
        self._unjudged += 1
        if config is None or self._unjudged < JUDGE_EVERY:
            return
        self._unjudged = 0
        out = [member for member in self.members if member.health.is_out_for_slowness(now_s)]
        peers = {load.spec.id: member for member in self.members if (load := member.load(now_s)).state.takes_requests}
        worst = slowest_outlier({name: member.health.slowness for name, member in peers.items()}, len(out), config)
        for name, member in peers.items():
            if name == worst:
                member.health.eject_slow(now_s)
            elif member.health.slowness.num_requests >= config.min_requests:
                member.health.praise()

    def _routable(self, now_s: float) -> list[BackendLoad]:
        """Loads of those that take requests and whose version gets traffic."""
        loads = [member.load(now_s) for member in self.members if member.version_weight > 0]
        return [load for load in loads if load.state.takes_requests]

    @staticmethod
    def _num_free(loads: list[BackendLoad]) -> int:
        return sum(load.free(Priority.P0) for load in loads)

    def _reserved_of(self, loads: list[BackendLoad], now_s: float) -> int:
        total = sum(load.urgent_slots for load in loads)
        known_total, since_s = self._reserved_for
        if total != known_total or now_s - since_s >= RESERVE_FOR_S:
            self._reserved = self.headroom.slots(total, now_s)
            self._reserved_for = (total, now_s)
        return self._reserved

    def _apply_weights(self) -> None:
        for member in self.members:
            member.version_weight = self._weights.get(member.spec.version, 0.0) if self._weights else 1.0
