"""A child that dies is replaced; what it could not do is said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from foveal.core.errors import EngineDeadError, ModelLoadError
from foveal.engine import supervised_child
from foveal.engine.ipc import AbortGroup, Message, StartFailed, WorkerReady
from foveal.engine.supervised_child import SupervisedChild

READY = WorkerReady("{}")
MESSAGE = AbortGroup("r")


class ScriptedChild:
    """Says the given messages, then is silent until it is told to die."""

    def __init__(self, *messages: Message | Exception) -> None:
        self._inbox: asyncio.Queue[Message | Exception | None] = asyncio.Queue()
        for message in messages:
            self._inbox.put_nowait(message)
        self.pid = 1
        self.exit_code: int | None = None
        self.stopped = False

    def die(self, exit_code: int = -9) -> None:
        self.exit_code = exit_code
        self._inbox.put_nowait(None)

    async def send(self, message: Message) -> None: ...

    def post(self, message: Message) -> None: ...

    async def receive(self) -> Message | None:
        message = await self._inbox.get()
        if isinstance(message, Exception):
            raise message
        return message

    def kill(self) -> None:
        self.stopped = True

    async def stop(self, grace_s: float = 5.0) -> None:
        self.stopped = True


class Harness:
    def __init__(self, *children: ScriptedChild | Exception) -> None:
        self._children = iter(children)
        self.messages: list[Message] = []
        self.deaths: list[int | None] = []
        self.process = SupervisedChild("worker", self._spawn, WorkerReady, self.messages.append, self.deaths.append)

    async def _spawn(self) -> ScriptedChild:
        child = next(self._children)
        if isinstance(child, Exception):
            raise child
        return child

    async def until(self, condition: Callable[[], bool]) -> None:
        async def poll() -> None:
            while not condition():
                await asyncio.sleep(0)

        await asyncio.wait_for(poll(), 5)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised_child, "_FIRST_RESTART_DELAY_S", 0.0)


async def test_messages_after_the_first_are_handed_on_in_order() -> None:
    child = ScriptedChild(READY, MESSAGE, AbortGroup("s"))
    harness = Harness(child)
    assert await harness.process.start() == READY
    await harness.until(lambda: len(harness.messages) == 2)
    assert harness.messages == [MESSAGE, AbortGroup("s")]
    await harness.process.stop()
    assert child.stopped
    assert harness.process.child is None
    assert harness.deaths == []


async def test_a_dead_child_is_reaped_reported_and_replaced() -> None:
    first, second = ScriptedChild(READY), ScriptedChild(READY, MESSAGE)
    harness = Harness(first, second)
    await harness.process.start()
    first.die(-9)
    await harness.until(lambda: harness.messages == [MESSAGE])
    assert first.stopped
    assert harness.deaths == [-9]
    assert harness.process.child is second
    assert harness.process.restarts == 1
    await harness.process.stop()


@pytest.mark.parametrize("failure", [OSError("cannot fork"), ScriptedChild(StartFailed("ModelLoadError", "gone"))])
async def test_a_restart_that_fails_is_tried_again(failure: ScriptedChild | Exception) -> None:
    first, last = ScriptedChild(READY), ScriptedChild(READY)
    harness = Harness(first, failure, last)
    await harness.process.start()
    first.die()
    await harness.until(lambda: harness.process.child is last)
    assert harness.process.restarts == 1
    await harness.process.stop()


async def test_a_stream_that_cannot_be_read_counts_as_a_death() -> None:
    first, second = ScriptedChild(READY, ValueError("not msgpack")), ScriptedChild(READY)
    harness = Harness(first, second)
    await harness.process.start()
    await harness.until(lambda: harness.process.child is second)
    assert first.stopped
    assert len(harness.deaths) == 1
    await harness.process.stop()


async def test_what_a_child_failed_with_at_its_start_is_raised() -> None:
    with pytest.raises(ModelLoadError, match="no such file"):
        await Harness(ScriptedChild(StartFailed("ModelLoadError", "no such file"))).process.start()
    silent = ScriptedChild()
    silent.die(1)
    with pytest.raises(EngineDeadError, match=r"worker died while starting \(exit code 1\)"):
        await Harness(silent).process.start()
    assert silent.stopped


async def test_a_start_that_is_cancelled_leaves_no_child() -> None:
    child = ScriptedChild()
    starting = asyncio.create_task(Harness(child).process.start())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert child.stopped
