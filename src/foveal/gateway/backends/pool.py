"""All backends: what is in flight where, who is well, and which class may start now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from foveal.core.priority import Priority
from foveal.gateway.backends.backend import BackendLoad, BackendSpec
from foveal.gateway.backends.member import Member
from foveal.gateway.backends.model_group import ModelGroup
from foveal.gateway.queueing.config import HeadroomConfig
from foveal.gateway.resilience.config import HealthConfig
from foveal.gateway.resilience.outcome import Outcome

__all__ = ["BackendPool", "Lease"]


class Lease(msgspec.Struct, eq=False):
    """One request's slot in a backend."""

    pool: BackendPool
    member: Member
    priority: Priority
    cost_ms: float
    since_s: float
    released: bool = False

    @property
    def backend(self) -> BackendSpec:
        return self.member.spec

    def release(self, outcome: Outcome, now_s: float, first_byte_s: float | None = None) -> None:
        """Give the slot back and say how it went; `first_byte_s` counts from the request's sending. Only the first
        call counts."""
        if not self.released:
            self.released = True
            self.pool.give_back(self, outcome, now_s, first_byte_s)


class BackendPool:
    """Belongs to one event loop; does no I/O. Time is an argument and must not go back."""

    def __init__(self, health: HealthConfig | None = None, headroom: HeadroomConfig | None = None) -> None:
        self._health = health or HealthConfig()
        self._headroom = headroom or HeadroomConfig()
        self._groups: dict[str, ModelGroup] = {}
        self._members: dict[str, Member] = {}
        self._leaving: list[Member] = []
        self.on_change: Callable[[str], None] | None = None
        """Called with the model's name when a waiting request might start now: a slot or a backend came back."""

    def update(self, specs: Iterable[BackendSpec], now_s: float) -> None:
        """Make `specs` the backends from now on. Those that stay keep their health and what is in flight; those that
        are gone finish what they have. Raises ValueError on two specs of one id, and then changes nothing."""
        wanted: dict[str, BackendSpec] = {}
        for spec in specs:
            if spec.id in wanted:
                raise ValueError(f"two backends have the id {spec.id}; ids must differ")
            wanted[spec.id] = spec
        for backend_id, member in list(self._members.items()):
            kept = wanted.get(backend_id)
            if kept is None or (kept.url, kept.model) != (member.spec.url, member.spec.model):
                self._leave(member, now_s)
        for spec in wanted.values():
            known = self._members.get(spec.id)
            if known is not None:
                known.spec = spec
                self._groups[spec.model].touch()
                continue
            group = self._groups.get(spec.model)
            if group is None:
                group = self._groups[spec.model] = ModelGroup(self._headroom, now_s)
            member = self._members[spec.id] = Member(spec, self._health)
            group.add(member)
        for model in [model for model, group in self._groups.items() if not group.members]:
            del self._groups[model]
        for model in self._groups:
            self._changed(model)

    def reload(self, health: HealthConfig, headroom: HeadroomConfig) -> None:
        """New settings from now on. What is known of health and rates is kept; a breaker that is open keeps its time."""
        self._health, self._headroom = health, headroom
        for member in self._members.values():
            member.health.reload(health)
        for group in self._groups.values():
            group.headroom.reload(headroom)
            group.touch()

    def set_weights(self, model: str, weights: Mapping[str, float]) -> None:
        """Traffic split between the versions of a model; a version that is not named, or has 0, gets none. An empty
        mapping lifts the split. Raises KeyError for an unknown model, ValueError for a negative weight."""
        if any(weight < 0 for weight in weights.values()):
            raise ValueError(f"weights of model {model} are {dict(weights)}; they must be at least 0")
        self._groups[model].set_weights(weights)
        self._changed(model)

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self._groups)

    @property
    def specs(self) -> tuple[BackendSpec, ...]:
        """Backends of the configuration, without those that are leaving."""
        return tuple(member.spec for member in self._members.values())

    def is_available(self, model: str, now_s: float) -> bool:
        """True if a backend of the model takes requests, be it full or not."""
        group = self._groups.get(model)
        return group is not None and group.is_available(now_s)

    def worst_admissible(self, model: str, now_s: float) -> Priority | None:
        """The least urgent class that may start now; all more urgent ones may, too. None if nobody may."""
        group = self._groups.get(model)
        return None if group is None else group.worst_admissible(now_s)

    def candidates(
        self, model: str, priority: Priority, now_s: float, excluded: frozenset[str] = frozenset()
    ) -> tuple[BackendLoad, ...]:
        """Backends that may take a request of this class now. Those in `excluded` only if there is no other."""
        group = self._groups.get(model)
        return () if group is None else group.candidates(priority, now_s, excluded)

    def acquire(self, backend_id: str, priority: Priority, cost_ms: float, now_s: float) -> Lease:
        """Take a slot of a backend that `candidates` named. Raises KeyError if it is gone."""
        member = self._members[backend_id]
        member.take(cost_ms)
        return Lease(self, member, priority, cost_ms, now_s)

    def give_back(self, lease: Lease, outcome: Outcome, now_s: float, first_byte_s: float | None) -> None:
        """Called by the lease."""
        member = lease.member
        member.give_back(lease.cost_ms)
        changed = member.health.record(outcome, now_s)
        group = self._groups.get(member.spec.model)
        if changed and group is not None:
            group.touch()
        if member.leaving or group is None:
            self._leaving = [left for left in self._leaving if left.in_flight]
        elif outcome is Outcome.SUCCESS:
            group.headroom.on_release(lease.priority, now_s - lease.since_s, now_s)
            if first_byte_s is not None and lease.cost_ms > 0:
                member.health.slowness.record(first_byte_s, lease.cost_ms)
                group.judge_slowness(self._health.outlier, now_s)
        self._changed(member.spec.model)

    def on_urgent_arrival(self, model: str, now_s: float) -> None:
        """A P0 request came in; slots are kept free by how often that happens."""
        group = self._groups.get(model)
        if group is not None:
            group.headroom.on_urgent_arrival(now_s)

    def on_urgent_start(self, model: str, waited_s: float) -> None:
        """A P0 request started or was given up after `waited_s`, while others waited."""
        group = self._groups.get(model)
        if group is not None:
            group.headroom.on_urgent_start(waited_s)

    def probed(self, spec: BackendSpec, ok: bool, now_s: float) -> None:
        """An active check of `spec` ended. Nothing happens if it is gone or another server by now."""
        member = self._members.get(spec.id)
        if member is not None and member.spec.url == spec.url:
            member.health.probed(ok, now_s)
            self._groups[spec.model].touch()
            self._changed(spec.model)

    def next_change_s(self, model: str, now_s: float) -> float | None:
        """When a backend comes back by time alone: look at the queue then."""
        group = self._groups.get(model)
        return None if group is None else group.next_change_s(now_s)

    def loads(self, now_s: float, model: str | None = None) -> tuple[BackendLoad, ...]:
        """A snapshot of all backends (of one model), those leaving included."""
        leaving = tuple(member.load() for member in self._leaving if model in (None, member.spec.model))
        groups = self._groups.values() if model is None else [self._groups[model]] if model in self._groups else []
        return tuple(load for group in groups for load in group.loads(now_s)) + leaving

    def reserved_slots(self, model: str, now_s: float) -> int:
        """Slots kept free for P0 now."""
        group = self._groups.get(model)
        return 0 if group is None else group.reserved(now_s)

    @property
    def num_in_flight(self) -> int:
        """Over all backends, those leaving included."""
        return sum(member.in_flight for member in (*self._members.values(), *self._leaving))

    def _changed(self, model: str) -> None:
        if self.on_change is not None:
            self.on_change(model)

    def _leave(self, member: Member, now_s: float) -> None:
        member.leaving = True
        member.refresh(now_s)
        del self._members[member.spec.id]
        self._groups[member.spec.model].remove(member)
        if member.in_flight:
            self._leaving.append(member)
