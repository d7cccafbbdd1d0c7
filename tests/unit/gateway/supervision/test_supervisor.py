from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from foveal.core.clock import ManualClock
from foveal.gateway.supervision.backoff import Backoff, RestartConfig
from foveal.gateway.supervision.process import launch
from foveal.gateway.supervision.supervisor import ChildSpec, Supervisor


class FakeProcess:
    def __init__(self, pid: int, obeys: bool) -> None:
        self.pid = pid
        self.obeys = obeys
        self.signals: list[str] = []
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    def end(self, status: int) -> None:
        if not self._ended.done():
            self._ended.set_result(status)

    def terminate(self) -> None:
        self.signals.append("terminate")
        if self.obeys:
            self.end(0)

    def kill(self) -> None:
        self.signals.append("kill")
        self.end(-9)


class FakeSystem:
    """Starts fake processes; sleeping takes no time but is written down."""

    def __init__(self, obeys: bool = True) -> None:
        self.clock = ManualClock()
        self.processes: list[FakeProcess] = []
        self.slept_s: list[float] = []
        self.obeys = obeys
        self.failures = 0
        self.started = asyncio.Condition()

    async def launch(self, command: Sequence[str], environment: Mapping[str, str], log: Path | None) -> FakeProcess:
        if self.failures:
            self.failures -= 1
            raise FileNotFoundError(command[0])
        self.processes.append(FakeProcess(len(self.processes) + 1, self.obeys))
        async with self.started:
            self.started.notify_all()
        return self.processes[-1]

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)

    async def until_started(self, count: int) -> None:
        async with asyncio.timeout(10), self.started:
            await self.started.wait_for(lambda: len(self.processes) >= count)

    def supervisor(self, *names: str, config: RestartConfig | None = None) -> Supervisor:
        children = [ChildSpec(name=name, command=("serve", name)) for name in names]
        return Supervisor(children, config, clock=self.clock, start_process=self.launch, sleep=self.sleep)


def test_restarts_in_a_row_wait_twice_as_long_up_to_a_bound_until_a_run_lasts() -> None:
    backoff = Backoff(RestartConfig(first_delay_s=1, max_delay_s=5, forgiven_after_s=60))
    assert [backoff.next_delay_s(0.0) for _ in range(4)] == [1, 2, 4, 5]
    assert backoff.next_delay_s(61.0) == 1
    assert backoff.next_delay_s(0.0) == 2


def test_the_delay_stays_a_number_after_a_thousand_restarts() -> None:
    backoff = Backoff(RestartConfig(max_delay_s=30))
    assert {backoff.next_delay_s(0.0) for _ in range(1000)} >= {30}


async def test_a_child_that_dies_is_started_again_and_the_others_stay() -> None:
    system = FakeSystem()
    async with system.supervisor("a", "b") as supervisor:
        await system.until_started(2)
        system.processes[0].end(-9)
        await system.until_started(3)
        await asyncio.sleep(0)
        assert (supervisor.pid("a"), supervisor.pid("b")) == (3, 2)
        assert (supervisor.restarts("a"), supervisor.restarts("b")) == (1, 0)
    assert system.slept_s == [0.5]


async def test_a_child_that_cannot_be_started_is_tried_again_later() -> None:
    system = FakeSystem()
    system.failures = 2
    async with system.supervisor("a") as supervisor:
        await system.until_started(1)
        assert supervisor.restarts("a") == 2
    assert system.slept_s == [0.5, 1.0]


async def test_stopping_terminates_children_and_starts_none_again() -> None:
    system = FakeSystem()
    supervisor = system.supervisor("a", "b")
    supervisor.start()
    await system.until_started(2)
    await supervisor.stop()
    await supervisor.stop()
    assert [process.signals for process in system.processes] == [["terminate"], ["terminate"]]
    assert supervisor.pid("a") is None


async def test_a_child_that_does_not_end_is_killed() -> None:
    system = FakeSystem(obeys=False)
    supervisor = system.supervisor("a")
    supervisor.start()
    await system.until_started(1)
    await supervisor.stop(grace_s=0)
    assert system.processes[0].signals[:2] == ["terminate", "kill"]


async def test_stopping_does_not_wait_for_a_restart_that_is_due_later() -> None:
    system = FakeSystem()
    never = asyncio.Event()

    async def sleep(seconds: float) -> None:
        await never.wait()

    supervisor = Supervisor([ChildSpec(name="a", command=("serve",))], start_process=system.launch, sleep=sleep)
    supervisor.start()
    await system.until_started(1)
    system.processes[0].end(1)
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await supervisor.stop(grace_s=3600)
    assert len(system.processes) == 1


async def test_two_children_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="different names: a, a"):
        FakeSystem().supervisor("a", "a")


async def test_a_real_process_runs_with_its_environment_and_log_and_can_be_ended(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    code = "import os, sys; print(os.environ['GREETING'], flush=True); sys.stdin.read(); import time; time.sleep(600)"
    process = await launch([sys.executable, "-c", code], {**os.environ, "GREETING": "hello"}, log)
    async with asyncio.timeout(30):
        while log.read_text() != "hello\n":
            await asyncio.sleep(0.01)
        process.terminate()
        assert await process.wait() == -15
    process.terminate()
    process.kill()


async def test_a_real_child_is_ended_with_what_it_started_when_it_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); p.wait()"
    process = await launch([sys.executable, "-c", code], dict(os.environ), log)
    async with asyncio.timeout(30):
        while not log.read_text().endswith("\n"):
            await asyncio.sleep(0.01)
        grandchild = int(log.read_text())
        process.kill()
        assert await process.wait() == -9
        while _alive(grandchild):
            await asyncio.sleep(0.01)


def _alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        # A zombie that nobody has waited for yet is dead as well.
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False
