from __future__ import annotations

import asyncio
import random

import pytest

from foveal.core.clock import ManualClock
from foveal.core.errors import BackendUnavailableError, OverloadedError
from foveal.core.priority import Priority
from foveal.gateway.backends.backend import BackendSpec
from foveal.gateway.backends.pool import BackendPool, Lease
from foveal.gateway.queueing.config import HeadroomConfig, QueueConfig
from foveal.gateway.queueing.dispatcher import Dispatcher
from foveal.gateway.queueing.ticket import Shed, ShedReason
from foveal.gateway.resilience.config import HealthConfig
from foveal.gateway.resilience.outcome import Outcome
from foveal.gateway.routing.least_loaded import LeastLoaded
from foveal.gateway.serving.seats import QueueTimeoutError, Seats
from support.gateway_call import make_call


class Room:
    """Backends with a number of slots each, and seats over them."""

    def __init__(self, *slots: int, queue: QueueConfig | None = None, known: bool = True) -> None:
        self.clock = ManualClock()
        self.pool = BackendPool(HealthConfig(interval_s=0 if known else 1), HeadroomConfig(assumed_share=0))
        self.pool.update([BackendSpec(f"b{i}", "http://x", "vlm", max_in_flight=n) for i, n in enumerate(slots)], 0.0)
        policy = LeastLoaded()
        dispatcher = Dispatcher(self.pool, lambda model: policy, queue or QueueConfig(), 0.0)
        self.shed: list[Shed] = []
        self.seats = Seats(self.pool, dispatcher, self.clock, lambda shed, error: self.shed.append(shed))


async def settled() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_free_slot_is_taken_without_waiting() -> None:
    room = Room(1)
    lease = await room.seats.take(make_call(), 10.0)
    assert (lease.backend.id, room.pool.num_in_flight, room.seats.num_waiting) == ("b0", 1, 0)


async def test_a_released_slot_goes_to_the_most_urgent_of_those_who_wait() -> None:
    room = Room(1)
    first = await room.seats.take(make_call(), 10.0)
    late = asyncio.create_task(room.seats.take(make_call(priority=Priority.P2), 10.0))
    await settled()
    urgent = asyncio.create_task(room.seats.take(make_call(priority=Priority.P0), 10.0))
    await settled()
    room.seats.release(first, Outcome.SUCCESS)
    assert (await urgent).backend.id == "b0"
    assert not late.done()
    room.seats.release(urgent.result(), Outcome.SUCCESS)
    room.seats.release(await late, Outcome.SUCCESS)
    assert room.pool.num_in_flight == 0


async def test_who_leaves_while_waiting_frees_the_place_in_the_queue() -> None:
    room = Room(1)
    lease = await room.seats.take(make_call(), 10.0)
    waiting = asyncio.create_task(room.seats.take(make_call(), 10.0))
    await settled()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert room.seats.num_waiting == 0
    room.seats.release(lease, Outcome.SUCCESS)
    assert room.pool.num_in_flight == 0


async def test_a_slot_given_to_someone_who_leaves_in_the_same_moment_is_given_back() -> None:
    room = Room(1)
    lease = await room.seats.take(make_call(), 10.0)
    waiting = asyncio.create_task(room.seats.take(make_call(), 10.0))
    await settled()
    room.seats.release(lease, Outcome.SUCCESS)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert room.pool.num_in_flight == 0


async def test_a_deadline_that_passes_in_the_queue_says_so_with_a_time_to_come_back() -> None:
    room = Room(1)
    await room.seats.take(make_call(), 10.0)
    waiting = asyncio.create_task(room.seats.take(make_call(), 5.0))
    await settled()
    room.clock.advance(5.0)
    room.seats.look()
    with pytest.raises(QueueTimeoutError, match="waited 5") as caught:
        await waiting
    assert caught.value.retry_after_s >= 1
    assert [shed.reason for shed in room.shed] == [ShedReason.EXPIRED]


async def test_a_deadline_without_any_backend_in_service_says_that_instead() -> None:
    room = Room(1, known=False)
    waiting = asyncio.create_task(room.seats.take(make_call(), 5.0))
    await settled()
    room.clock.advance(5.0)
    room.seats.look()
    with pytest.raises(BackendUnavailableError, match="no backend of model vlm"):
        await waiting


async def test_a_backend_that_comes_into_service_lets_in_who_waits() -> None:
    room = Room(1, known=False)
    waiting = asyncio.create_task(room.seats.take(make_call(), 5.0))
    await settled()
    room.pool.probed(room.pool.specs[0], True, 0.0)
    room.seats.look()
    assert (await waiting).backend.id == "b0"


async def test_nobody_queues_for_a_model_that_a_reload_took_away() -> None:
    room = Room(1)
    room.pool.update([], 1.0)
    with pytest.raises(BackendUnavailableError, match="model vlm was just taken out of service"):
        await asyncio.wait_for(room.seats.take(make_call(), 10.0), 30.0)
    assert room.seats.num_waiting == 0


async def test_a_full_queue_refuses_the_least_urgent() -> None:
    room = Room(1, queue=QueueConfig(max_requests=1))
    await room.seats.take(make_call(), 10.0)
    patient = asyncio.create_task(room.seats.take(make_call(priority=Priority.P2), 10.0))
    await settled()
    urgent = asyncio.create_task(room.seats.take(make_call(), 10.0))
    await settled()
    with pytest.raises(OverloadedError, match="more urgent"):
        await patient
    with pytest.raises(OverloadedError, match="full"):
        await room.seats.take(make_call(priority=Priority.P2), 10.0)
    assert not urgent.done()
    room.seats.close("bye")
    with pytest.raises(OverloadedError, match="bye"):
        await urgent


async def test_a_second_slot_is_on_another_backend_or_none() -> None:
    room = Room(2, 1)
    call = make_call()
    first = await room.seats.take(call, 10.0)
    other = room.seats.take_another(call, frozenset({first.backend.id}))
    assert other is not None
    assert other.backend.id != first.backend.id
    assert room.seats.take_another(call, frozenset({"b0", "b1"})) is None


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_every_slot_comes_back_and_nobody_waits_for_ever(seed: int) -> None:
    chance = random.Random(seed)
    room = Room(2, 1, queue=QueueConfig(max_requests=5))
    tasks: list[asyncio.Task[Lease]] = []
    released: set[int] = set()
    most = 0
    for _ in range(300):
        action = chance.random()
        if action < 0.45:
            call = make_call(priority=Priority(chance.randrange(3)), arrival_s=room.clock.now_s())
            tasks.append(asyncio.create_task(room.seats.take(call, room.clock.now_s() + chance.uniform(0.1, 3))))
        elif action < 0.6 and tasks:
            chance.choice(tasks).cancel()
        elif action < 0.9:
            done = [t for t in tasks if t.done() and not t.cancelled() and t.exception() is None]
            held = [t for t in done if id(t) not in released]
            if held:
                task = chance.choice(held)
                released.add(id(task))
                room.seats.release(task.result(), chance.choice([Outcome.SUCCESS, Outcome.BROKEN, Outcome.CLIENT_GONE]))
        else:
            room.clock.advance(chance.uniform(0, 1))
            room.seats.look()
        if chance.random() < 0.7:
            await settled()
        most = max(most, room.pool.num_in_flight)
    room.clock.advance(60)
    room.seats.look()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if not task.cancelled() and task.exception() is None and id(task) not in released:
            room.seats.release(task.result(), Outcome.SUCCESS)
    assert (room.pool.num_in_flight, room.seats.num_waiting) == (0, 0)
    assert 0 < most <= 3
