from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from foveal.core.clock import ManualClock
from foveal.gateway.backends.backend import BackendSpec, BackendState
from foveal.gateway.backends.health_checker import HealthChecker
from foveal.gateway.backends.pool import BackendPool
from foveal.gateway.backends.supplier import StaticReplicas
from foveal.gateway.resilience.config import HealthConfig
from support.gateway_tickets import spec

CONFIG = HealthConfig(interval_s=2.0, timeout_s=0.02, failures_to_eject=2)


class Asked:
    """Backends that answer as told; `frozen` ones never do."""

    def __init__(self) -> None:
        self.answers: dict[str, bool | Exception] = {}
        self.frozen: set[str] = set()
        self.calls: list[str] = []

    async def probe(self, backend: BackendSpec) -> bool:
        self.calls.append(backend.id)
        if backend.id in self.frozen:
            await asyncio.Event().wait()
        answer = self.answers.get(backend.id, True)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Bench:
    def __init__(self, *names: str) -> None:
        self.clock = ManualClock()
        self.asked = Asked()
        self.pool = BackendPool(CONFIG)
        self.pool.update([spec(name) for name in names], 0.0)
        self.checker = HealthChecker(self.pool, self.asked.probe, CONFIG, self.clock)

    async def round(self, seconds: float = 0.0) -> None:
        """Time passes, checks start, and all that ever will end do."""
        self.clock.advance(seconds)
        self.checker.start_due()
        await asyncio.gather(*self.checker._running.values())

    def states(self) -> dict[str, BackendState]:
        return {load.spec.id: load.state for load in self.pool.loads(self.clock.now_s())}


async def test_a_backend_is_used_after_its_first_good_check() -> None:
    bench = Bench("a", "b")
    bench.asked.answers["b"] = False
    await bench.round()
    assert bench.states() == {"a": BackendState.UP, "b": BackendState.STARTING}


@pytest.mark.parametrize("failure", [False, OSError("refused"), TimeoutError()])
async def test_failed_checks_eject_a_backend(failure: bool | Exception) -> None:
    bench = Bench("a")
    await bench.round()
    bench.asked.answers["a"] = failure
    await bench.round(2.0)
    await bench.round(2.0)
    assert bench.states() == {"a": BackendState.EJECTED}


async def test_a_frozen_backend_delays_nobody_and_is_ejected() -> None:
    bench = Bench("a", "b")
    await bench.round()
    bench.asked.frozen.add("a")
    await bench.round(2.0)
    await bench.round(2.0)
    assert bench.states() == {"a": BackendState.EJECTED, "b": BackendState.UP}


async def test_one_check_at_a_time() -> None:
    bench = Bench("a")
    bench.asked.frozen.add("a")
    for _ in range(5):
        bench.clock.advance(10.0)
        bench.checker.start_due()
        await asyncio.sleep(0)
    assert bench.asked.calls == ["a"]
    await asyncio.gather(*bench.checker._running.values())


async def test_a_backend_that_is_down_is_asked_more_often() -> None:
    bench = Bench("up", "down")
    bench.asked.answers["down"] = False
    for _ in range(20):
        await bench.round(0.1)
    assert bench.asked.calls.count("up") == 1
    assert bench.asked.calls.count("down") > 4


async def test_a_removed_backend_is_no_longer_asked() -> None:
    bench = Bench("a", "b")
    await bench.round()
    bench.pool.update([spec("b")], 0.0)
    await bench.round(2.0)
    assert bench.asked.calls == ["a", "b", "b"]


async def test_run_goes_on_until_cancelled_and_leaves_no_task() -> None:
    bench = Bench("a")
    bench.asked.frozen.add("a")
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        bench.clock.advance(seconds)
        await asyncio.sleep(0)

    checker = HealthChecker(bench.pool, bench.asked.probe, CONFIG, bench.clock, sleep)
    task = asyncio.create_task(checker.run())
    while len(waited) < 5:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert checker._running == {}


async def test_checks_can_be_turned_off_and_on_again() -> None:
    bench = Bench("a")
    await bench.round()
    bench.checker.reload(HealthConfig(interval_s=0))
    await bench.round(100.0)
    assert bench.asked.calls == ["a"]
    bench.checker.reload(CONFIG)
    await bench.round()
    assert bench.asked.calls == ["a", "a"]


async def test_a_shorter_interval_holds_at_once() -> None:
    bench = Bench("a")
    bench.checker.reload(replace(CONFIG, interval_s=100.0))
    await bench.round()
    bench.checker.reload(replace(CONFIG, interval_s=1.0))
    await bench.round(1.0)
    assert bench.asked.calls == ["a", "a"]


def test_a_static_list_tells_of_changes_only() -> None:
    supplier = StaticReplicas([spec("a")])
    heard: list[tuple[BackendSpec, ...]] = []
    subscribe: Callable[[Callable[[tuple[BackendSpec, ...]], None]], None] = supplier.subscribe
    subscribe(heard.append)
    supplier.replace([spec("a")])
    supplier.replace([spec("a"), spec("b")])
    assert heard == [(spec("a"), spec("b"))]
    assert supplier.current() == (spec("a"), spec("b"))
