"""The front end's side of the engine process: starts it, restarts it when it dies, hands events to requests."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from foveal.core.errors import EngineDeadError, FovealError
from foveal.engine.api import EngineStats
from foveal.engine.child import Child
from foveal.engine.config import EngineConfig
from foveal.engine.ipc import (
    AbortGroup,
    AddRequest,
    FinishChoice,
    Message,
    Ready,
    RequestFailed,
    StartEngine,
    StepEvents,
    TokenEvent,
)
from foveal.engine.remote_error import rebuild_error
from foveal.engine.supervised_child import SupervisedChild

__all__ = ["EngineLink", "StreamItem"]

_MODULE = "foveal.engine.engine_process"

StreamItem = TokenEvent | FovealError


class EngineLink:
    """One engine process at a time. Requests of a dead engine end with EngineDeadError; they are not replayed,
    because a client may have seen part of the answer."""

    def __init__(self, config: EngineConfig, segment_directory: Path) -> None:
        start = partial(Child.start, _MODULE, StartEngine(config, str(segment_directory)))
        self._process = SupervisedChild(
            "engine process",
            start,
            Ready,
            self._take,
            self._bury,
            start_hint="; if it was killed for memory, use a smaller --memory-utilization or --max-model-len",
        )
        self._streams: dict[str, asyncio.Queue[StreamItem]] = {}
        self._stats = EngineStats()

    @property
    def is_alive(self) -> bool:
        return self._process.child is not None

    @property
    def pid(self) -> int | None:
        return None if self._process.child is None else self._process.child.pid

    @property
    def ready(self) -> Ready | None:
        """What the engine said when it was last ready."""
        return self._process.ready

    @property
    def restarts(self) -> int:
        return self._process.restarts

    @property
    def stats(self) -> EngineStats:
        return self._stats

    async def start(self) -> Ready:
        """Raises ModelLoadError, ArtifactError or ConfigurationError if the engine cannot start."""
        return await self._process.start()

    async def stop(self) -> None:
        await self._process.stop()
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
        if self._process.child is None:
            raise EngineDeadError("the engine process died and is restarting; retry in a few seconds")
        try:
            await self._process.child.send(request)
        except ConnectionError:
            raise EngineDeadError(
                "the engine process died before it took the request; retry in a few seconds"
            ) from None

    def abort(self, request_id: str) -> None:
        self._post(AbortGroup(request_id))

    def finish_choice(self, request_id: str, index: int) -> None:
        self._post(FinishChoice(request_id, index))

    def _post(self, message: Message) -> None:
        if self._process.child is not None:
            self._process.child.post(message)

    def _take(self, message: Message) -> None:
        if isinstance(message, StepEvents):
            self._stats = EngineStats(**message.stats)
            for event in message.events:
                self._deliver(event.request_id, event)
        elif isinstance(message, RequestFailed):
            self._deliver(message.request_id, rebuild_error(message.kind, message.message, message.param))

    def _bury(self, exit_code: int | None) -> None:
        self._stats = EngineStats()
        self._fail_streams(f"the engine process died (exit code {exit_code}); it is being restarted, retry")

    def _deliver(self, request_id: str, item: StreamItem) -> None:
        # A request that was aborted a moment ago has no stream any more; its last events are dropped.
        if (queue := self._streams.get(request_id)) is not None:
            queue.put_nowait(item)

    def _fail_streams(self, reason: str) -> None:
        for queue in self._streams.values():
            queue.put_nowait(EngineDeadError(reason))
