"""A child process that is started again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

import structlog

from foveal.core.errors import EngineDeadError
from foveal.engine.ipc import Message, StartFailed
from foveal.engine.remote_error import rebuild_error

__all__ = ["ChildProcess", "SupervisedChild"]

_FIRST_RESTART_DELAY_S = 0.1
_MAX_RESTART_DELAY_S = 30.0
_log = structlog.get_logger(__name__)

ReadyT = TypeVar("ReadyT")


class ChildProcess(Protocol):
    """What is asked of a running child; `foveal.engine.child.Child` is one."""

    @property
    def pid(self) -> int: ...

    @property
    def exit_code(self) -> int | None: ...

    async def send(self, message: Message) -> None: ...

    def post(self, message: Message) -> None: ...

    async def receive(self) -> Message | None: ...

    def kill(self) -> None: ...

    async def stop(self, grace_s: float = 5.0) -> None: ...


class SupervisedChild(Generic[ReadyT]):
    """One child and its successors.

    `spawn` starts a child, whose first message must be a `ready_type` (or StartFailed). Each later message goes to
    `on_message`; when a child is gone, `on_death` gets its exit code before the next one is started.
    """

    def __init__(
        self,
        name: str,
        spawn: Callable[[], Awaitable[ChildProcess]],
        ready_type: type[ReadyT],
        on_message: Callable[[Message], None],
        on_death: Callable[[int | None], None],
        *,
        start_hint: str = "",
    ) -> None:
        self._name = name
        self._spawn = spawn
        self._ready_type = ready_type
        self._on_message = on_message
        self._on_death = on_death
        self._start_hint = start_hint
        self._task: asyncio.Task[None] | None = None
        self.child: ChildProcess | None = None
        self.ready: ReadyT | None = None
        self.restarts = 0

    async def start(self) -> ReadyT:
        """Raises what the child failed with, EngineDeadError if it died without a word."""
        self.child, self.ready = await self._start_one()
        self._task = asyncio.create_task(self._supervise(self.child))
        return self.ready

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self.child is not None:
            await self.child.stop()
            self.child = None

    async def _start_one(self) -> tuple[ChildProcess, ReadyT]:
        child = await self._spawn()
        try:
            message = await child.receive()
        except BaseException:
            child.kill()
            raise
        if isinstance(message, self._ready_type):
            return child, message
        await child.stop(grace_s=0.0)
        if isinstance(message, StartFailed):
            raise rebuild_error(message.kind, message.message)
        raise EngineDeadError(f"the {self._name} died while starting (exit code {child.exit_code}){self._start_hint}")

    async def _supervise(self, child: ChildProcess) -> None:
        while True:
            try:
                while (message := await child.receive()) is not None:
                    self._on_message(message)
            except Exception:  # a message that cannot be read: as good as a dead child, and it must not end this task
                _log.exception("child_stream_broken", child=self._name)
            self.child = None
            await child.stop(grace_s=0.0)
            _log.error("child_died", child=self._name, exit_code=child.exit_code)
            self._on_death(child.exit_code)
            child = await self._restart()

    async def _restart(self) -> ChildProcess:
        delay_s = _FIRST_RESTART_DELAY_S
        while True:
            try:
                self.child, self.ready = await self._start_one()
            except Exception as error:  # also OSError: a machine without memory to fork may have some later
                _log.error("child_restart_failed", child=self._name, error=str(error), retry_in_s=delay_s)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, _MAX_RESTART_DELAY_S)
            else:
                self.restarts += 1
                return self.child
