from __future__ import annotations

import pytest

from foveal.core.priority import Priority
from foveal.gateway.queueing.config import QueueConfig
from foveal.gateway.queueing.fair_queue import FairQueue
from foveal.gateway.queueing.ticket import ShedReason, Ticket
from foveal.gateway.queueing.wait_forecast import PROMISED_PART
from support.gateway_tickets import ticket

P0, P1, P2 = Priority


def queue_of(*tickets: Ticket, config: QueueConfig | None = None) -> FairQueue:
    queue = FairQueue(config or QueueConfig())
    for item in tickets:
        assert queue.push(item, item.arrival_s) == []
    return queue


def learnt(queue: FairQueue, ms_per_s: float, seconds: float = 5.0) -> float:
    """Let the queue see `ms_per_s` drain for a while. Returns the time."""
    now_s = 0.0
    keep = ticket("keeps waiting", priority=P2, cost_ms=1e-6)
    queue.push(keep, now_s)
    for _ in range(int(seconds * 10)):
        queue.push(ticket(priority=P2, cost_ms=ms_per_s / 10, tenant="learner"), now_s)
        now_s += 0.1
        if queue.pop(now_s) is keep:
            queue.pop(now_s)
            queue.push(keep, now_s)
    queue.remove(keep.id, now_s)
    return now_s


def full(queue: FairQueue) -> float:
    """A queue of two that drains 1,000 ms per second, full of more urgent requests. Returns the time."""
    now_s = learnt(queue, ms_per_s=1000.0)
    for _ in range(2):
        assert queue.push(ticket(arrival_s=now_s, priority=P0, cost_ms=1.0), now_s) == []
    return now_s


def test_urgent_classes_go_first() -> None:
    queue = queue_of(ticket("c", priority=P2), ticket("b", priority=P1), ticket("a", priority=P0))
    assert [queue.pop(0.0).id for _ in range(3)] == ["a", "b", "c"]  # type: ignore[union-attr]


def test_only_classes_that_may_start_are_taken() -> None:
    queue = queue_of(ticket(priority=P2), ticket(priority=P1))
    assert queue.pop(0.0, worst=P0) is None
    assert len(queue) == 2


def test_a_class_that_waited_long_passes_a_fresh_one() -> None:
    queue = queue_of(ticket("old", priority=P2, arrival_s=0.0), config=QueueConfig(ageing_s=10.0))
    queue.push(ticket("fresh", priority=P1, arrival_s=9.0), 9.0)
    assert queue.pop(9.9).id == "fresh"  # type: ignore[union-attr]
    queue.push(ticket("fresh again", priority=P1, arrival_s=10.0), 10.0)
    assert queue.pop(10.0).id == "old"  # type: ignore[union-attr]


def test_aged_requests_take_no_more_than_their_share() -> None:
    config = QueueConfig(ageing_s=1.0, aged_share=0.1, max_requests=10_000, max_cost_ms=1e9)
    queue = queue_of(*(ticket(priority=P2, arrival_s=0.0) for _ in range(400)), config=config)
    started = []
    for step in range(400):
        now_s = 100.0 + step
        queue.push(ticket(priority=P0, arrival_s=now_s), now_s)
        started.append(queue.pop(now_s).priority)  # type: ignore[union-attr]
    assert started.count(P2) == pytest.approx(40, abs=1)


def test_each_aged_class_has_a_share_of_its_own() -> None:
    config = QueueConfig(ageing_s=1.0, aged_share=0.1, max_requests=10_000, max_cost_ms=1e9)
    queue = queue_of(
        *(ticket(priority=priority, arrival_s=0.0) for priority in (P1, P2) for _ in range(400)), config=config
    )
    started = []
    for step in range(400):
        now_s = 100.0 + step
        queue.push(ticket(priority=P0, arrival_s=now_s), now_s)
        started.append(queue.pop(now_s).priority)  # type: ignore[union-attr]
    assert started.count(P1) == pytest.approx(40, abs=1)
    assert started.count(P2) == pytest.approx(40, abs=1)


def test_a_class_can_rise_to_the_top_before_its_deadline_however_short_that_is() -> None:
    queue = queue_of(ticket("patient for 4 s", priority=P1, patience_s=4.0), config=QueueConfig(ageing_s=10.0))
    queue.push(ticket(priority=P0, arrival_s=3.0), 3.0)
    assert queue.pop(3.0).id == "patient for 4 s"  # type: ignore[union-attr]


def test_a_full_queue_sheds_the_least_urgent_first() -> None:
    queue = queue_of(
        ticket("p2", priority=P2),
        ticket("p1", priority=P1),
        ticket("p0", priority=P0),
        config=QueueConfig(max_requests=3),
    )
    shed = queue.push(ticket("new", priority=P1), 0.0)
    assert [(left.ticket.id, left.reason) for left in shed] == [("p2", ShedReason.EVICTED)]
    shed = queue.push(ticket("newer", priority=P2), 0.0)
    assert [(left.ticket.id, left.reason) for left in shed] == [("newer", ShedReason.FULL)]


def test_within_a_class_the_tenant_that_holds_most_loses_its_newest() -> None:
    queue = queue_of(
        *(ticket(f"greedy {number}", tenant="greedy") for number in range(3)), config=QueueConfig(max_requests=3)
    )
    shed = queue.push(ticket("modest 0", tenant="modest"), 0.0)
    assert [left.ticket.id for left in shed] == ["greedy 2"]
    shed = queue.push(ticket("greedy 3", tenant="greedy"), 0.0)
    assert [left.ticket.id for left in shed] == ["greedy 3"]


def test_bytes_are_bounded_and_nobody_is_evicted_in_vain() -> None:
    config = QueueConfig(max_bytes=100)
    queue = queue_of(ticket("p2", priority=P2, num_bytes=30), ticket("p0", priority=P0, num_bytes=60), config=config)
    shed = queue.push(ticket("too large", priority=P1, num_bytes=50), 0.0)
    assert [left.ticket.id for left in shed] == ["too large"]
    assert "p2" in queue
    assert queue.num_bytes == 90
    assert queue.pop(0.0).id == "p0"  # type: ignore[union-attr]
    shed = queue.push(ticket("fits without p2", priority=P1, num_bytes=80), 0.0)
    assert [left.ticket.id for left in shed] == ["p2"]


def test_cost_is_bounded_but_one_dear_request_may_always_wait() -> None:
    queue = queue_of(ticket("dear", cost_ms=1e9), config=QueueConfig(max_cost_ms=1000.0))
    assert [left.reason for left in queue.push(ticket(priority=P2, cost_ms=1.0), 0.0)] == [ShedReason.FULL]


def test_requests_leave_at_their_deadline() -> None:
    queue = queue_of(ticket("late", patience_s=5.0), ticket("later", patience_s=9.0))
    assert queue.expire(4.9) == []
    assert queue.next_deadline_s() == 5.0
    assert [(left.ticket.id, left.reason) for left in queue.expire(5.0)] == [("late", ShedReason.EXPIRED)]
    assert queue.next_deadline_s() == 9.0


def test_what_would_pass_its_deadline_is_refused_at_once() -> None:
    queue = FairQueue(QueueConfig(ageing_s=1000.0))
    now_s = learnt(queue, ms_per_s=1000.0)
    for _ in range(10):
        assert queue.push(ticket(cost_ms=1000.0, arrival_s=now_s), now_s) == []
    hopeless = ticket(arrival_s=now_s, patience_s=8.0)
    assert [left.reason for left in queue.push(hopeless, now_s)] == [ShedReason.HOPELESS]
    assert queue.push(ticket(arrival_s=now_s, patience_s=12.0), now_s) == []


def test_a_tenant_without_backlog_is_not_hopeless_behind_one_with_a_long_one() -> None:
    queue = FairQueue(QueueConfig(ageing_s=1000.0))
    now_s = learnt(queue, ms_per_s=1000.0)
    for _ in range(50):
        queue.push(ticket(tenant="greedy", cost_ms=1000.0, arrival_s=now_s), now_s)
    assert queue.push(ticket(tenant="modest", cost_ms=1000.0, arrival_s=now_s, patience_s=3.0), now_s) == []


def test_more_urgent_arrivals_are_part_of_the_forecast() -> None:
    queue = FairQueue(QueueConfig(ageing_s=1000.0))
    now_s = learnt(queue, ms_per_s=1000.0)
    queue.push(ticket(priority=P2, cost_ms=1000.0, arrival_s=now_s), now_s)
    newcomer = ticket(priority=P2, tenant="other", cost_ms=1000.0, arrival_s=now_s)
    alone_s = queue.expected_wait_s(newcomer, now_s)
    for step in range(40):
        queue.push(ticket(priority=P0, cost_ms=60.0), now_s + step / 10)
        queue.pop(now_s + step / 10)
    crowded_s = queue.expected_wait_s(newcomer, now_s + 4.0)
    assert alone_s == pytest.approx(1.0, rel=0.2)
    assert crowded_s is not None
    assert crowded_s > 1.4


def test_a_measured_rate_of_waiting_time_only() -> None:
    queue = FairQueue(QueueConfig())
    now_s = learnt(queue, ms_per_s=1000.0)
    now_s += 1000.0  # a long idle time says nothing about the backends
    queue.push(ticket(cost_ms=1000.0, arrival_s=now_s), now_s)
    newcomer = ticket(cost_ms=1000.0, arrival_s=now_s)
    assert queue.expected_wait_s(newcomer, now_s) == pytest.approx(1.0, rel=0.05)


def test_refused_requests_are_told_to_return_one_after_the_other() -> None:
    queue = FairQueue(QueueConfig(max_requests=2, shed_hopeless=False))
    now_s = full(queue)
    told = [queue.push(ticket(cost_ms=2000.0, arrival_s=now_s), now_s)[0].retry_after_s for _ in range(5)]
    assert told == pytest.approx([2.0 * turn / PROMISED_PART for turn in range(1, 6)], rel=0.05)


def test_retry_after_is_bounded_and_recovers() -> None:
    queue = FairQueue(QueueConfig(max_requests=2, max_retry_after_s=30.0, shed_hopeless=False))
    now_s = full(queue)
    for _ in range(1000):
        told = queue.push(ticket(cost_ms=2000.0, arrival_s=now_s), now_s)[0].retry_after_s
    assert told == 30.0
    queue.clear(now_s)
    now_s += 40.0
    for _ in range(2):
        queue.push(ticket(arrival_s=now_s, priority=P0, cost_ms=1.0), now_s)
    later = queue.push(ticket(cost_ms=2000.0, arrival_s=now_s), now_s)[0]
    assert later.retry_after_s == pytest.approx(2.0 / PROMISED_PART, rel=0.05)


def test_one_request_waits_once() -> None:
    queue = queue_of(ticket("same"))
    with pytest.raises(ValueError, match="waits already"):
        queue.push(ticket("same"), 0.0)


def test_a_client_that_left_no_longer_waits() -> None:
    queue = queue_of(ticket("gone", num_bytes=7))
    assert queue.remove("gone", 1.0) is not None
    assert queue.remove("gone", 1.0) is None
    assert (len(queue), queue.num_bytes, queue.cost_ms) == (0, 0, 0.0)
