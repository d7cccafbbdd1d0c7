"""What is in flight and whether new requests may come in: drain, then cut off."""

from __future__ import annotations

import asyncio

from foveal.core.errors import OverloadedError

__all__ = ["InFlight"]


class InFlight:
    """Lives on one event loop; no locks. A task carries one request. Invariant: when idle, `num_requests` is 0."""

    def __init__(self, name: str, retry_after_s: float = 1.0) -> None:
        """`name` is what shuts down, in the words of an error: "gateway"."""
        self._name = name
        self._retry_after_s = retry_after_s
        self._tasks: set[asyncio.Task[object]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False
        self.cut_off = False
        """True once the grace period is over and requests are being ended."""

    @property
    def num_requests(self) -> int:
        return len(self._tasks)

    def enter(self) -> asyncio.Task[object]:
        """Count the current task's request until `leave`. Raises OverloadedError (503) while draining."""
        if self.draining:
            raise OverloadedError(
                f"the {self._name} is shutting down and takes no new requests; retry, so that another replica answers",
                retry_after_s=self._retry_after_s,
            )
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._idle.clear()
        return task

    def leave(self, task: asyncio.Task[object]) -> None:
        """`task` is what `enter` gave."""
        self._tasks.discard(task)
        if not self._tasks:
            self._idle.set()

    async def drain(self, grace_s: float) -> bool:
        """Refuse new requests and wait for those in flight; True if all of them finished within `grace_s` seconds."""
        self.draining = True
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def cut_off_all(self) -> None:
        """End what is still in flight: each answers with an explicit error. For the end of the grace period."""
        self.draining = self.cut_off = True
        for task in list(self._tasks):
            task.cancel()
        await self._idle.wait()
