"""What is in flight, in requests and bytes, and who may come in. The one place that says 503 for load or draining."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from foveal.core.errors import OverloadedError
from foveal.engine.server.config import ServerConfig

__all__ = ["Admission", "Lease"]


class Lease:
    """One admitted request and the bytes it holds. Grown as bytes arrive, released as a whole."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.num_bytes = 0

    def grow(self, num_bytes: int) -> None:
        """Raises OverloadedError, and changes nothing, if all requests together would hold too much."""
        self._admission.add_bytes(num_bytes)
        self.num_bytes += num_bytes


class Admission:
    """Lives on one event loop; no locks. Invariant: when idle, `num_requests` and `num_bytes` are 0."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.num_requests = 0
        self.num_bytes = 0
        self.draining = False
        self.cut_off = False
        """True once the grace period is over and requests are being ended."""

    @contextmanager
    def enter(self) -> Iterator[Lease]:
        """Count one request until the block ends. Raises OverloadedError when draining or full."""
        if self.draining:
            raise OverloadedError(
                "the server is shutting down and takes no new requests; retry, so that another replica answers",
                retry_after_s=self._config.retry_after_s,
            )
        limit = self._config.max_concurrent_requests
        if self.num_requests >= limit:
            raise OverloadedError(
                f"{self.num_requests} requests are in flight; the limit is {limit}. Retry shortly, or raise "
                "--max-concurrent-requests",
                retry_after_s=self._config.retry_after_s,
            )
        lease = Lease(self)
        task = asyncio.current_task()
        self.num_requests += 1
        self._idle.clear()
        if task is not None:
            self._tasks.add(task)
        try:
            yield lease
        finally:
            self.num_requests -= 1
            self.num_bytes -= lease.num_bytes
            if task is not None:
                self._tasks.discard(task)
            if self.num_requests == 0:
                self._idle.set()

    def add_bytes(self, num_bytes: int) -> None:
        """Raises OverloadedError above the limit."""
        limit = self._config.max_body_bytes_in_flight
        if self.num_bytes + num_bytes > limit:
            raise OverloadedError(
                f"requests in flight hold {self.num_bytes:,} bytes and this one adds {num_bytes:,}; the limit is {limit:,}. "
                "Retry shortly, or send smaller images",
                retry_after_s=self._config.retry_after_s,
            )
        self.num_bytes += num_bytes

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
        """End what is still in flight: each request answers with an explicit error. For the end of the grace period."""
        self.draining = self.cut_off = True
        for task in list(self._tasks):
            task.cancel()
        await self._idle.wait()
