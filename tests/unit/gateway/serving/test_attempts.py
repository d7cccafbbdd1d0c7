"""Attempts over real seats, with backends that fail as told and time that moves when told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from foveal.core.clock import ManualClock
from foveal.core.priority import Priority
from foveal.gateway.backends.backend import BackendSpec
from foveal.gateway.backends.pool import BackendPool
from foveal.gateway.queueing.config import HeadroomConfig, QueueConfig
from foveal.gateway.queueing.dispatcher import Dispatcher
from foveal.gateway.resilience.config import HealthConfig, RetryConfig
from foveal.gateway.resilience.outcome import Outcome
from foveal.gateway.resilience.retry_policy import RetryPolicy
from foveal.gateway.routing.least_loaded import LeastLoaded
from foveal.gateway.serving.asking import Asking, Opened
from foveal.gateway.serving.attempts import Attempts
from foveal.gateway.serving.call import Call
from foveal.gateway.serving.forwarder import Forwarder
from foveal.gateway.serving.hedging import Hedging
from foveal.gateway.serving.seats import Seats
from foveal.gateway.wire.upstream import UpstreamError, UpstreamHead
from foveal.observability.exchange_record import ExchangeRecord
from foveal.observability.waterfall import Waterfall
from support.gateway_call import make_call

WAIT_S = 10.0


class WholeAnswer:
    head = UpstreamHead(200, ((b"content-type", b"application/json"),))
    complete = True

    def take(self) -> bytes:
        return b"{}"

    def chunks(self) -> Any:
        raise AssertionError("it is complete")

    async def close(self) -> None:
        """Nothing is held."""


async def well() -> None:
    """Nothing happens."""


async def broken() -> None:
    raise UpstreamError("it broke off", "first_byte")


class World:
    """One backend with one slot. `meanwhile` is what happens during an attempt; raising fails it."""

    def __init__(self, **retry: Any) -> None:
        self.clock = ManualClock()
        self.counts: Counter[str] = Counter()
        self.meanwhile: Callable[[], Awaitable[None]] = well
        self.pool = BackendPool(HealthConfig(interval_s=0), HeadroomConfig(assumed_share=0))
        self.pool.update([BackendSpec("b0", "http://x", "vlm", max_in_flight=1)], 0.0)
        policy = LeastLoaded()
        dispatcher = Dispatcher(self.pool, lambda model: policy, QueueConfig(), 0.0)
        self.seats = Seats(self.pool, dispatcher, self.clock)
        asking = Asking(Forwarder(self), self.seats, self, self.clock)
        hedging = Hedging(asking, self.seats, self.pool, None, self, self.clock)
        retries = RetryPolicy(RetryConfig(backoff_s=0.0, **retry), 0.0)
        self._attempts = Attempts(hedging, self.seats, self.pool, retries, self._wait_s, self, self.clock)

    async def open(self, call: Call, attempts_before: int = 0) -> Opened:
        record = ExchangeRecord(call.id, attempts=attempts_before)
        return await self._attempts.open(call, record, Waterfall(self.clock.now_s))

    @staticmethod
    def _wait_s(priority: Priority) -> float:
        return WAIT_S

    # The client of the forwarder.

    async def send(
        self, backend: BackendSpec, method: str, path: str, headers: Any, body: Sequence[Any], timeouts: Any
    ) -> WholeAnswer:
        await self.meanwhile()
        return WholeAnswer()

    async def aclose(self) -> None:
        """Nothing is held."""

    # The metrics.

    def backend_finished(self, backend: str, result: str, first_byte_s: float | None = None) -> None:
        """Counted elsewhere."""

    def count(self, name: str, *labels: str, by: float = 1.0) -> None:
        self.counts[name] += 1


async def test_a_fallback_that_comes_late_waits_in_its_queue_as_long_as_any_other() -> None:
    world = World()
    taken = await world.seats.take(make_call(), WAIT_S)
    world.clock.advance(WAIT_S + 1)  # spent in the queue of the model that was asked for
    opening = asyncio.create_task(world.open(make_call(arrival_s=0.0)))
    await asyncio.sleep(0)
    world.clock.advance(WAIT_S - 1)
    world.seats.look()
    world.seats.release(taken, Outcome.SUCCESS)
    assert (await opening).lease.backend.id == "b0"


async def test_a_fallback_that_is_tried_again_waits_anew_like_any_other() -> None:
    world = World()
    others = []

    async def overtaken_and_broken() -> None:
        world.clock.advance(WAIT_S + 1)
        others.append(asyncio.create_task(world.seats.take(make_call(), 1000.0)))
        await asyncio.sleep(0)
        world.meanwhile = well
        await broken()

    world.meanwhile = overtaken_and_broken
    opening = asyncio.create_task(world.open(make_call(), attempts_before=1))
    while not others:
        await asyncio.sleep(0)
    world.seats.release(await others[0], Outcome.SUCCESS)
    assert (await opening).lease.backend.id == "b0"


async def test_only_retries_that_the_budget_refused_are_counted_as_refused() -> None:
    world = World(budget_burst=1.0, budget_min_per_s=0.0, budget_fraction=0.0, max_attempts=2)
    world.meanwhile = broken
    with pytest.raises(UpstreamError):
        await world.open(make_call())  # its two attempts are used up, and so is the budget
    assert world.counts["retries_refused_total"] == 0
    with pytest.raises(UpstreamError):
        await world.open(make_call())
    assert world.counts["retries_refused_total"] == 1
