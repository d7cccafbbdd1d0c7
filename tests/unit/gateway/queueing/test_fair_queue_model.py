"""Whatever happens to it, the queue loses nobody, keeps its limits and its figures agree with a plain list."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from foveal.core.priority import Priority
from foveal.gateway.queueing.config import QueueConfig
from foveal.gateway.queueing.fair_queue import FairQueue
from foveal.gateway.queueing.ticket import ShedReason, Ticket
from support.gateway_tickets import ticket

CONFIG = QueueConfig(max_requests=12, max_bytes=1000, max_cost_ms=20_000.0, ageing_s=5.0)
WEIGHTS = {"a": 1.0, "b": 3.0, "c": 0.2}


class FairQueueModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue(CONFIG)
        self.waiting: dict[str, Ticket] = {}
        self.now_s = 0.0

    @rule(seconds=st.floats(0.0, 20.0))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(
        tenant=st.sampled_from("abc"),
        priority=st.sampled_from(Priority),
        cost_ms=st.floats(0.1, 30_000.0),
        num_bytes=st.integers(0, 600),
        patience_s=st.floats(0.1, 60.0),
    )
    def push(self, tenant: str, priority: Priority, cost_ms: float, num_bytes: int, patience_s: float) -> None:
        new = ticket(
            tenant=tenant,
            priority=priority,
            cost_ms=cost_ms,
            num_bytes=num_bytes,
            arrival_s=self.now_s,
            patience_s=patience_s,
            weight=WEIGHTS[tenant],
        )
        shed = self.queue.push(new, self.now_s)
        self.waiting[new.id] = new
        for left in shed:
            del self.waiting[left.ticket.id]
            assert CONFIG.min_retry_after_s <= left.retry_after_s <= CONFIG.max_retry_after_s
            if left.ticket is new:
                assert left.reason in (ShedReason.FULL, ShedReason.HOPELESS)
                assert len(shed) == 1
            else:
                assert left.reason is ShedReason.EVICTED
                assert left.ticket.priority >= priority

    @rule(worst=st.sampled_from(Priority))
    def pop(self, worst: Priority) -> None:
        popped = self.queue.pop(self.now_s, worst)
        if popped is None:
            assert all(item.priority > worst for item in self.waiting.values())
        else:
            assert popped.priority <= worst
            del self.waiting[popped.id]

    @rule()
    def expire(self) -> None:
        expired = {left.ticket.id for left in self.queue.expire(self.now_s)}
        assert expired == {item.id for item in self.waiting.values() if item.deadline_s <= self.now_s}
        for ticket_id in expired:
            del self.waiting[ticket_id]

    @rule(position=st.integers(0, 20))
    def client_leaves(self, position: int) -> None:
        if self.waiting:
            gone = list(self.waiting.values())[position % len(self.waiting)]
            assert self.queue.remove(gone.id, self.now_s) is gone
            del self.waiting[gone.id]

    @invariant()
    def figures_agree(self) -> None:
        assert len(self.queue) == len(self.waiting)
        assert self.queue.num_bytes == sum(item.num_bytes for item in self.waiting.values())
        assert abs(self.queue.cost_ms - sum(item.cost_ms for item in self.waiting.values())) < 1e-3
        assert self.queue.next_deadline_s() == min((item.deadline_s for item in self.waiting.values()), default=None)
        for priority in Priority:
            assert self.queue.length(priority) == sum(item.priority == priority for item in self.waiting.values())

    @invariant()
    def limits_hold(self) -> None:
        assert len(self.queue) <= CONFIG.max_requests
        assert self.queue.num_bytes <= CONFIG.max_bytes
        assert len(self.queue) <= 1 or self.queue.cost_ms <= CONFIG.max_cost_ms + 30_000.0

    def teardown(self) -> None:
        assert {item.id for item in self.queue.clear(self.now_s)} == set(self.waiting)
        assert len(self.queue) == 0


FairQueueModel.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestFairQueueModel = FairQueueModel.TestCase
