from __future__ import annotations

from foveal.core.priority import Priority
from foveal.gateway.backends.pool import BackendPool
from foveal.gateway.queueing.config import HeadroomConfig, QueueConfig
from foveal.gateway.queueing.dispatcher import Dispatcher, Grant
from foveal.gateway.queueing.ticket import ShedReason, Ticket
from foveal.gateway.resilience.config import BreakerConfig, HealthConfig
from foveal.gateway.resilience.outcome import Outcome
from foveal.gateway.routing.least_loaded import LeastLoaded
from support.gateway_tickets import price, request, spec, ticket

P0, P1, P2 = Priority


class Bench:
    """A dispatcher over backends that are well. No slot is reserved unless asked for."""

    def __init__(self, slots: int = 1, names: str = "a", reserve: bool = False, **queue: float) -> None:
        health = HealthConfig(interval_s=0, breaker=BreakerConfig(consecutive_failures=1, open_s=5.0))
        headroom = HeadroomConfig() if reserve else HeadroomConfig(max_fraction=0.0)
        self.pool = BackendPool(health, headroom)
        self.pool.update([spec(name, max_in_flight=slots) for name in names], 0.0)
        policy = LeastLoaded()
        self.dispatcher = Dispatcher(self.pool, lambda _: policy, QueueConfig(**queue), 0.0)  # type: ignore[arg-type]

    def submit(self, item: Ticket, now_s: float = 0.0) -> Grant | None:
        return self.dispatcher.submit(item, request(), price(item.cost_ms), now_s).grant


def test_a_free_backend_is_taken_at_once() -> None:
    grant = Bench().submit(ticket())
    assert grant is not None
    assert grant.lease.backend.id == "a"


def test_who_finds_no_room_waits_until_a_slot_comes_back() -> None:
    bench = Bench()
    first = bench.submit(ticket("first"))
    assert bench.submit(ticket("second")) is None
    assert bench.dispatcher.pump("vlm", 1.0).grants == []
    assert first is not None
    first.lease.release(Outcome.SUCCESS, 1.0)
    assert [grant.ticket.id for grant in bench.dispatcher.pump("vlm", 1.0).grants] == ["second"]
    assert len(bench.dispatcher) == 0


def test_a_newcomer_does_not_pass_its_own_class() -> None:
    bench = Bench()
    first = bench.submit(ticket("first"))
    bench.submit(ticket("waits"))
    assert first is not None
    first.lease.release(Outcome.SUCCESS, 1.0)
    assert bench.submit(ticket("newcomer", arrival_s=1.0), 1.0) is None
    assert [grant.ticket.id for grant in bench.dispatcher.pump("vlm", 1.0).grants] == ["waits"]


def test_an_urgent_newcomer_passes_those_who_may_not_use_the_free_slot() -> None:
    bench = Bench(slots=8, reserve=True)
    granted = [bench.submit(ticket(priority=P2)) for _ in range(8)]
    assert granted[-1] is None  # the eighth slot is kept for P0
    assert granted[-2] is not None
    assert bench.submit(ticket(priority=P0)) is not None


def test_a_request_that_failed_somewhere_goes_elsewhere_if_it_can() -> None:
    bench = Bench(slots=2, names="ab")
    for _ in range(2):
        grant = bench.submit(ticket(excluded=frozenset("a")))
        assert grant is not None
        assert grant.lease.backend.id == "b"
    last = bench.submit(ticket(excluded=frozenset("a")))
    assert last is not None
    assert last.lease.backend.id == "a"


def test_models_have_queues_of_their_own() -> None:
    bench = Bench()
    bench.pool.update([spec("a", max_in_flight=1), spec("b", model="other", max_in_flight=1)], 0.0)
    assert bench.submit(ticket()) is not None
    assert bench.submit(ticket()) is None
    assert bench.submit(ticket(model="other")) is not None


def test_who_waits_too_long_leaves_with_a_reason() -> None:
    bench = Bench()
    bench.submit(ticket())
    bench.submit(ticket("late", patience_s=2.0))
    assert bench.dispatcher.next_wake_s("vlm", 0.0) == 2.0
    shed = bench.dispatcher.pump("vlm", 2.0).shed
    assert [(left.ticket.id, left.reason) for left in shed] == [("late", ShedReason.EXPIRED)]
    assert bench.dispatcher.next_wake_s("vlm", 2.0) is None


def test_it_wakes_when_a_backend_may_be_tried_again() -> None:
    bench = Bench()
    first = bench.submit(ticket())
    assert first is not None
    first.lease.release(Outcome.BROKEN, 1.0)
    assert bench.submit(ticket("waits", patience_s=100.0), 1.0) is None
    assert bench.dispatcher.next_wake_s("vlm", 1.0) == 6.0
    assert [grant.ticket.id for grant in bench.dispatcher.pump("vlm", 6.0).grants] == ["waits"]


def test_a_client_that_left_is_not_started() -> None:
    bench = Bench()
    first, gone = bench.submit(ticket()), ticket("gone")
    bench.submit(gone)
    assert bench.dispatcher.cancel(gone, 1.0)
    assert not bench.dispatcher.cancel(gone, 1.0)
    assert first is not None
    first.lease.release(Outcome.SUCCESS, 1.0)
    assert bench.dispatcher.pump("vlm", 1.0).grants == []


def test_a_closed_queue_gives_everybody_back() -> None:
    bench = Bench()
    bench.submit(ticket())
    bench.submit(ticket("one"))
    bench.submit(ticket("two"))
    assert {left.id for left in bench.dispatcher.close("vlm", 1.0)} == {"one", "two"}
    assert bench.dispatcher.close("vlm", 1.0) == []
    assert len(bench.dispatcher) == 0


def test_the_evicted_are_named_when_a_newcomer_takes_their_place() -> None:
    bench = Bench(max_requests=1)
    bench.submit(ticket())
    bench.submit(ticket("p2", priority=P2))
    submitted = bench.dispatcher.submit(ticket("p1", priority=P1), request(), price(), 0.0)
    assert submitted.grant is None
    assert [left.ticket.id for left in submitted.shed] == ["p2"]
    assert len(bench.dispatcher) == 1


def test_new_limits_hold_from_a_reload_on() -> None:
    bench = Bench()
    bench.submit(ticket())
    bench.submit(ticket("waits"))
    bench.dispatcher.reload(QueueConfig(max_requests=1))
    submitted = bench.dispatcher.submit(ticket("one too many"), request(), price(), 0.0)
    assert [left.ticket.id for left in submitted.shed] == ["one too many"]
    assert "waits" in bench.dispatcher.queue("vlm")


def test_the_real_cost_counts_for_the_next_turn() -> None:
    bench = Bench()
    running = bench.submit(ticket())
    tickets = {name: ticket(name, tenant=name[0]) for name in ("a1", "a2", "b1", "b2", "b3")}
    for item in tickets.values():
        bench.submit(item)
    started = []
    while running is not None:
        running.lease.release(Outcome.SUCCESS, 1.0)
        grants = bench.dispatcher.pump("vlm", 1.0).grants
        running = grants[0] if grants else None
        if running is not None:
            started.append(running.ticket.id)
            if running.ticket.id == "a1":
                bench.dispatcher.settle(running.ticket, 1000.0)
    assert started == ["a1", "b1", "b2", "b3", "a2"]
