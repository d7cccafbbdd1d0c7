"""A small discrete-event simulation around the gateway's real dispatcher, pool and queue.

Only arrivals and backends are simulated. A backend serves up to `capacity` requests at full speed; beyond that (P0 above
max_in_flight) all share its speed, as in a batch that is larger than the machine is quick.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from foveal.core.priority import Priority
from foveal.gateway.backends.backend import BackendSpec
from foveal.gateway.backends.pool import BackendPool, Lease
from foveal.gateway.pricing.price import Price
from foveal.gateway.queueing.config import HeadroomConfig, QueueConfig
from foveal.gateway.queueing.dispatcher import Dispatcher, Grant
from foveal.gateway.queueing.ticket import Shed, Ticket
from foveal.gateway.request.view import RequestView
from foveal.gateway.resilience.config import HealthConfig
from foveal.gateway.resilience.outcome import Outcome
from foveal.gateway.routing.config import RoutingConfig
from foveal.gateway.routing.make_policy import make_policy

MODEL = "vlm"


@dataclass(frozen=True)
class ServiceTime:
    """Lognormal, cut to [low_s, high_s]: a VLM's answers, from a short label to a long description."""

    median_s: float = 1.0
    sigma: float = 0.8
    low_s: float = 0.2
    high_s: float = 5.0

    def draw(self, rng: random.Random) -> float:
        return min(self.high_s, max(self.low_s, rng.lognormvariate(math.log(self.median_s), self.sigma)))

    def mean_s(self) -> float:
        return _mean_s(self)


@cache
def _mean_s(service: ServiceTime) -> float:
    rng = random.Random(1)
    return sum(service.draw(rng) for _ in range(20_000)) / 20_000


@dataclass(frozen=True)
class Stream:
    """Requests of one tenant and class."""

    tenant: str
    priority: Priority
    load: float
    """Work it brings, as a part of all backends' capacity."""
    service: ServiceTime = ServiceTime()
    patience_s: float = 10.0
    weight: float = 1.0
    start_s: float = 0.0
    end_s: float = math.inf
    burst: float = 1.0
    """Above 1 its arrivals come in waves: for a tenth of the time so many times as often as else."""
    price_factor: float = 1.0
    """Its prices are the real cost times this."""
    returns: bool = False
    """A refused request comes back once, when Retry-After says."""


@dataclass(frozen=True)
class Simulation:
    streams: Sequence[Stream]
    num_backends: int = 4
    slots: int = 8
    urgent_slots: int = 0
    duration_s: float = 600.0
    warm_up_s: float = 60.0
    price_error: float = 0.3
    """Sigma of the lognormal factor by which prices miss the real cost."""
    queue: QueueConfig = field(default_factory=lambda: QueueConfig(max_requests=200))
    headroom: HeadroomConfig = field(default_factory=HeadroomConfig)
    routing: RoutingConfig = field(default_factory=lambda: RoutingConfig(policy="least_loaded"))
    seed: int = 1

    @property
    def capacity(self) -> int:
        """Seconds of service per second."""
        return self.num_backends * self.slots


@dataclass
class ClassReport:
    arrived: int = 0
    started: int = 0
    shed: int = 0
    work_s: float = 0.0
    waits_s: list[float] = field(default_factory=list)

    def within(self, wait_s: float) -> float:
        """Part of all that arrived which started within `wait_s`."""
        return sum(wait <= wait_s for wait in self.waits_s) / self.arrived if self.arrived else 1.0

    def wait_quantile_s(self, quantile: float) -> float:
        ordered = sorted(self.waits_s)
        return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] if ordered else 0.0

    @property
    def shed_fraction(self) -> float:
        return self.shed / self.arrived if self.arrived else 0.0


@dataclass
class Report:
    by_class: dict[Priority, ClassReport]
    by_tenant: dict[str, ClassReport]
    goodput: float
    """Work done per capacity, after the warm-up."""
    mean_reserved: float
    returned: int = 0
    returned_started: int = 0
    sheds: list[Shed] = field(default_factory=list)
    max_waiting: int = 0


class _Backend:
    """Processor sharing above `capacity`, in virtual time: every request gets min(1, capacity / n) of a second per
    second."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.jobs: list[tuple[float, int, float, Ticket, Lease]] = []
        self.virtual_s = 0.0
        self.last_s = 0.0
        self.version = 0

    def advance(self, now_s: float) -> float:
        """Returns the work done since the last call, seconds."""
        elapsed_s = now_s - self.last_s
        self.last_s = now_s
        if not self.jobs:
            return 0.0
        self.virtual_s += elapsed_s * min(1.0, self.capacity / len(self.jobs))
        return elapsed_s * min(self.capacity, len(self.jobs))

    def next_end_s(self) -> float | None:
        if not self.jobs:
            return None
        left_s = max(0.0, self.jobs[0][0] - self.virtual_s)
        return self.last_s + left_s * max(1.0, len(self.jobs) / self.capacity)


class Simulator:
    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.rng = random.Random(simulation.seed)
        self.now_s = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self.pool = BackendPool(HealthConfig(interval_s=0, outlier=None), simulation.headroom)
        names = [f"b{index}" for index in range(simulation.num_backends)]
        self.pool.update(
            [
                BackendSpec(
                    name,
                    f"http://{name}:1",
                    MODEL,
                    max_in_flight=simulation.slots,
                    urgent_slots=simulation.urgent_slots,
                )
                for name in names
            ],
            0.0,
        )
        policy = make_policy(simulation.routing)
        self.dispatcher = Dispatcher(self.pool, lambda _: policy, simulation.queue, 0.0)
        self.backends = {name: _Backend(simulation.slots) for name in names}
        self._services: dict[str, tuple[float, Stream, bool]] = {}
        self._done_s = 0.0
        self._reserved = 0.0
        self._reserved_samples = 0
        self.report = Report(defaultdict(ClassReport), defaultdict(ClassReport), 0.0, 0.0)

    def run(self) -> Report:
        for stream in self.simulation.streams:
            self._schedule_arrival(stream, stream.start_s)
        while self._events and self._events[0][0] <= self.simulation.duration_s:
            time_s, _, action = heapq.heappop(self._events)
            self.now_s = max(self.now_s, time_s)
            action()
        for backend in self.backends.values():
            self._advance(backend, self.simulation.duration_s)
        measured_s = self.simulation.duration_s - self.simulation.warm_up_s
        self.report.goodput = self._done_s / measured_s / self.simulation.capacity
        self.report.mean_reserved = self._reserved / max(1, self._reserved_samples)
        return self.report

    def _at(self, time_s: float, action: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (time_s, self._number, action))

    def _schedule_arrival(self, stream: Stream, from_s: float) -> None:
        rate = stream.load * self.simulation.capacity / stream.service.mean_s()
        if stream.burst > 1:
            quiet = rate / (0.9 + 0.1 * stream.burst)
            rate = quiet * (stream.burst if (from_s % 10.0) < 1.0 else 1.0)
        next_s = from_s + self.rng.expovariate(rate)
        if next_s <= min(stream.end_s, self.simulation.duration_s):
            self._at(next_s, lambda: self._arrive(stream))

    def _arrive(self, stream: Stream) -> None:
        self._schedule_arrival(stream, self.now_s)
        self._submit(stream, stream.service.draw(self.rng), returned=False)

    def _submit(self, stream: Stream, service_s: float, returned: bool) -> None:
        self._number += 1
        cost_ms = service_s * 1e3 * stream.price_factor * self.rng.lognormvariate(0.0, self.simulation.price_error)
        ticket = Ticket(
            id=str(self._number),
            model=MODEL,
            tenant=stream.tenant,
            priority=stream.priority,
            cost_ms=cost_ms,
            arrival_s=self.now_s,
            deadline_s=self.now_s + stream.patience_s,
            weight=stream.weight,
        )
        self._services[ticket.id] = (service_s, stream, returned)
        if not returned:
            self._count(ticket, "arrived")
        request = RequestView("chat", MODEL, 0, 0, False, 0, 0)
        submitted = self.dispatcher.submit(ticket, request, Price(1, 1, cost_ms), self.now_s)
        self._shed(submitted.shed)
        if submitted.grant is not None:
            self._start(submitted.grant)
        else:
            self._wake()
        self.report.max_waiting = max(self.report.max_waiting, len(self.dispatcher))

    def _count(self, ticket: Ticket, what: str) -> None:
        if ticket.arrival_s >= self.simulation.warm_up_s:
            for report in (self.report.by_class[ticket.priority], self.report.by_tenant[ticket.tenant]):
                setattr(report, what, getattr(report, what) + 1)

    def _shed(self, sheds: Sequence[Shed]) -> None:
        for shed in sheds:
            service_s, stream, returned = self._services.pop(shed.ticket.id)
            if not returned:
                self._count(shed.ticket, "shed")
                self.report.sheds.append(shed)
            if stream.returns and not returned:
                self._at(
                    self.now_s + shed.retry_after_s, lambda s=stream, t=service_s: self._submit(s, t, returned=True)
                )
                self.report.returned += 1

    def _pump(self) -> None:
        pumped = self.dispatcher.pump(MODEL, self.now_s)
        self._shed(pumped.shed)
        for grant in pumped.grants:
            self._start(grant)
        self._wake()
        self._reserved += self.pool.reserved_slots(MODEL, self.now_s)
        self._reserved_samples += 1

    def _wake(self) -> None:
        wake_s = self.dispatcher.next_wake_s(MODEL, self.now_s)
        if wake_s is not None and wake_s > self.now_s:
            self._at(wake_s, self._pump_if_due)

    def _pump_if_due(self) -> None:
        wake_s = self.dispatcher.next_wake_s(MODEL, self.now_s)
        if wake_s is not None and wake_s <= self.now_s:
            self._pump()

    def _start(self, grant: Grant) -> None:
        ticket = grant.ticket
        service_s, _stream, returned = self._services.pop(ticket.id)
        if returned:
            self.report.returned_started += 1
        else:
            self._count(ticket, "started")
        if ticket.arrival_s >= self.simulation.warm_up_s and not returned:
            for report in (self.report.by_class[ticket.priority], self.report.by_tenant[ticket.tenant]):
                report.waits_s.append(self.now_s - ticket.arrival_s)
                report.work_s += service_s
        backend = self.backends[grant.lease.backend.id]
        self._advance(backend, self.now_s)
        self._number += 1
        entry = (backend.virtual_s + service_s, self._number, service_s, ticket, grant.lease)
        heapq.heappush(backend.jobs, entry)
        self._watch(backend)

    def _watch(self, backend: _Backend) -> None:
        backend.version += 1
        end_s = backend.next_end_s()
        if end_s is not None:
            self._at(end_s, lambda version=backend.version: self._finish(backend, version))

    def _finish(self, backend: _Backend, version: int) -> None:
        if version != backend.version:
            return
        self._advance(backend, self.now_s)
        _, _, service_s, ticket, lease = heapq.heappop(backend.jobs)
        lease.release(Outcome.SUCCESS, self.now_s, first_byte_s=service_s)
        self.dispatcher.settle(ticket, service_s * 1e3)
        self._watch(backend)
        self._pump()

    def _advance(self, backend: _Backend, now_s: float) -> None:
        before_s = backend.last_s
        done_s = backend.advance(now_s)
        if now_s > self.simulation.warm_up_s and now_s > before_s:
            done_s *= min(1.0, (now_s - self.simulation.warm_up_s) / (now_s - before_s))
            self._done_s += done_s


def simulate(simulation: Simulation) -> Report:
    return Simulator(simulation).run()
