"""Keeps child processes running: what dies is started again, later each time it dies young."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from foveal.core.clock import Clock, MonotonicClock
from foveal.gateway.supervision.backoff import Backoff, RestartConfig
from foveal.gateway.supervision.process import ChildProcess, launch
from foveal.observability.logs import get_logger

__all__ = ["ChildSpec", "Supervisor"]

_log = get_logger("foveal.supervisor")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    """On top of ours."""
    log: Path | None = None
    """Where its output goes; absent: to ours."""


class _Child:
    """`restarts` counts how often it was started again."""

    def __init__(self, spec: ChildSpec, backoff: Backoff) -> None:
        self.spec = spec
        self.backoff = backoff
        self.process: ChildProcess | None = None
        self.restarts = 0


Launch = Callable[[Sequence[str], Mapping[str, str], Path | None], Awaitable[ChildProcess]]
Sleep = Callable[[float], Awaitable[None]]


class Supervisor:
    """One task per child. Use it as `async with`, or start and stop it."""

    def __init__(
        self,
        children: Sequence[ChildSpec],
        config: RestartConfig | None = None,
        *,
        clock: Clock | None = None,
        start_process: Launch = launch,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """Raises ValueError if two children share a name."""
        config = config or RestartConfig()
        self._children = {spec.name: _Child(spec, Backoff(config)) for spec in children}
        if len(self._children) != len(children):
            raise ValueError(f"children must have different names: {', '.join(spec.name for spec in children)}")
        self._clock = clock or MonotonicClock()
        self._launch = start_process
        self._sleep = sleep
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()

    async def __aenter__(self) -> Supervisor:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._keep_running(child)) for child in self._children.values()]

    @property
    def _stopping(self) -> bool:
        return self._stop.is_set()

    def pid(self, name: str) -> int | None:
        """None while it is down. Raises KeyError for an unknown child."""
        process = self._children[name].process
        return process.pid if process else None

    def restarts(self, name: str) -> int:
        return self._children[name].restarts

    async def stop(self, grace_s: float = 30.0) -> None:
        """Ask all children to end; kill what has not after `grace_s` seconds. Idempotent."""
        self._stop.set()
        running = [child.process for child in self._children.values() if child.process]
        for process in running:
            process.terminate()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace_s)
            for child in self._children.values():
                if child.process:
                    _log.warning("killing a child that does not end", child=child.spec.name, pid=child.process.pid)
                    child.process.kill()
            # What is left waits for a restart, or for a process that has just been killed.
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _keep_running(self, child: _Child) -> None:
        while True:
            started_s = self._clock.now_s()
            status = await self._run_once(child)
            if self._stopping:
                return
            delay_s = child.backoff.next_delay_s(self._clock.now_s() - started_s)
            _log.warning("child ended; starting it again", child=child.spec.name, status=status, delay_s=delay_s)
            if await self._stopped_within(delay_s):
                return
            child.restarts += 1

    async def _stopped_within(self, delay_s: float) -> bool:
        """Waits, unless everything is to end."""
        pause, stop = asyncio.ensure_future(self._sleep(delay_s)), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({pause, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pause.cancel()
            stop.cancel()
        return self._stopping

    async def _run_once(self, child: _Child) -> int | str:
        """Exit status, or why it could not be started."""
        spec = child.spec
        try:
            process = await self._launch(spec.command, {**os.environ, **spec.environment}, spec.log)
        except OSError as error:
            return f"could not be started: {error}"
        child.process = process
        _log.info("child started", child=spec.name, pid=process.pid)
        try:
            if self._stopping:
                process.terminate()
            return await process.wait()
        except asyncio.CancelledError:
            process.kill()
            raise
        finally:
            child.process = None
