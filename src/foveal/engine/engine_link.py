"""The front end's side of the engine process: starts it, restarts it when it dies, hands events to requests."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import structlog

from foveal.core.errors import EngineDeadError, FovealError
from foveal.engine.api import EngineStats
from foveal.engine.child import Child
from foveal.engine.config import EngineConfig
from foveal.engine.ipc import (
    AbortGroup,
    AddRequest,
    FinishChoice,
    Ready,
    RequestFailed,
    StartEngine,
    StartFailed,
    StepEvents,
    TokenEvent,
)
from foveal.engine.remote_error import rebuild_error

__all__ = ["EngineLink", "StreamItem"]

_MODULE = "foveal.engine.engine_process"
_MAX_RESTART_DELAY_S = 30.0
_log = structlog.get_logger(__name__)

StreamItem = TokenEvent | FovealError


class EngineLink:
    """One engine process at a time. Requests of a dead engine end with EngineDeadError; they are not replayed,
    because a client may have seen part of the answer."""

    def __init__(self, config: EngineConfig, segment_directory: Path) -> None:
        self._hello = StartEngine(config, str(segment_directory))
        self._child: Child | None = None
        self._task: asyncio.Task[None] | None = None
        self._streams: dict[str, asyncio.Queue[StreamItem]] = {}
        self._stats = EngineStats()
        self.ready: Ready | None = None
        self.restarts = 0

    @property
    def is_alive(self) -> bool:
        return self._child is not None

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    @property
    def stats(self) -> EngineStats:
        return self._stats

    async def start(self) -> Ready:
        """Raises ModelLoadError or ConfigurationError if the engine cannot start."""
        self._child, self.ready = await self._spawn()
        self._task = asyncio.create_task(self._supervise())
        return self.ready

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._child is not None:
            await self._child.stop()
            self._child = None
        self._fail_streams("the engine was stopped")

    def open_stream(self, request_id: str) -> asyncio.Queue[StreamItem]:
        queue: asyncio.Queue[StreamItem] = asyncio.Queue()
        self._streams[request_id] = queue
        return queue

    def has_stream(self, request_id: str) -> bool:
        return request_id in self._streams

    def close_stream(self, request_id: str) -> None:
        self._streams.pop(request_id, None)

    async def add(self, request: AddRequest) -> None:
        """Raises EngineDeadError."""
        if self._child is None:
            raise EngineDeadError("the engine process died and is restarting; retry in a few seconds")
        try:
            await self._child.send(request)
        except ConnectionError:
            raise EngineDeadError(
                "the engine process died before it took the request; retry in a few seconds"
            ) from None

    def abort(self, request_id: str) -> None:
        if self._child is not None:
            self._child.post(AbortGroup(request_id))

    def finish_choice(self, request_id: str, index: int) -> None:
        if self._child is not None:
            self._child.post(FinishChoice(request_id, index))

    async def _spawn(self) -> tuple[Child, Ready]:
        child = await Child.start(_MODULE, self._hello)
        try:
            message = await child.receive()
        except asyncio.CancelledError:
            child.kill()
            raise
        if isinstance(message, Ready):
            return child, message
        await child.stop(grace_s=0.0)
        if isinstance(message, StartFailed):
            raise rebuild_error(message.kind, message.message)
        raise EngineDeadError(
            f"the engine process died while loading (exit code {child.exit_code}); if it was killed for memory, use a "
            "smaller --memory-utilization or --max-model-len"
        )

    async def _supervise(self) -> None:
        while True:
            assert self._child is not None
            try:
                await self._pump(self._child)
            except Exception:  # a message that cannot be read: as good as a dead engine, and it must not end this task
                _log.exception("engine_stream_broken")
            dead, self._child = self._child, None
            await dead.stop(grace_s=0.0)
            _log.error("engine_died", exit_code=dead.exit_code, requests=len(self._streams))
            self._stats = EngineStats()
            self._fail_streams(f"the engine process died (exit code {dead.exit_code}); it is being restarted, retry")
            await self._restart()

    async def _pump(self, child: Child) -> None:
        """Hand out messages until the child is gone."""
        while (message := await child.receive()) is not None:
            if isinstance(message, StepEvents):
                self._stats = EngineStats(**message.stats)
                for event in message.events:
                    self._deliver(event.request_id, event)
            elif isinstance(message, RequestFailed):
                self._deliver(message.request_id, rebuild_error(message.kind, message.message, message.param))

    async def _restart(self) -> None:
        delay_s = 0.1
        while self._child is None:
            try:
                self._child, self.ready = await self._spawn()
                self.restarts += 1
            except FovealError as error:
                _log.error("engine_restart_failed", error=str(error), retry_in_s=delay_s)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, _MAX_RESTART_DELAY_S)

    def _deliver(self, request_id: str, item: StreamItem) -> None:
        # A request that was aborted a moment ago has no stream any more; its last events are dropped.
        if (queue := self._streams.get(request_id)) is not None:
            queue.put_nowait(item)

    def _fail_streams(self, reason: str) -> None:
        for queue in self._streams.values():
            queue.put_nowait(EngineDeadError(reason))
