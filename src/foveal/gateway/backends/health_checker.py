"""Asks every backend now and then whether it is well."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from foveal.core.clock import Clock
from foveal.core.errors import FovealError
from foveal.gateway.backends.backend import BackendSpec
from foveal.gateway.backends.pool import BackendPool
from foveal.gateway.resilience.config import HealthConfig

__all__ = ["HealthChecker", "Probe"]

Probe = Callable[[BackendSpec], Awaitable[bool]]
"""True if the backend says it is well. May raise OSError or FovealError, which counts as False; need not end in time."""

UNSEEN_INTERVAL_S = 0.25
"""Between checks of a backend that is not up: it should be back soon after it is well."""


class HealthChecker:
    """Checks run side by side, each bounded, so that a frozen backend delays nobody's check. One check per backend at a
    time. A backend that is down is asked more often."""

    def __init__(
        self,
        pool: BackendPool,
        probe: Probe,
        config: HealthConfig,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._pool = pool
        self._probe = probe
        self._config = config
        self._clock = clock
        self._sleep = sleep
        self._due_s: dict[tuple[str, str], float] = {}
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until cancelled. With checks turned off it only waits for a reload that turns them on."""
        try:
            while True:
                self.start_due()
                await self._sleep(UNSEEN_INTERVAL_S)
        finally:
            running = list(self._running.values())
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def reload(self, config: HealthConfig) -> None:
        """New settings from the next check on."""
        if config.interval_s < self._config.interval_s or self._config.interval_s == 0:
            self._due_s.clear()
        self._config = config

    def start_due(self) -> None:
        """Start the checks that are due. Called by `run`."""
        if self._config.interval_s == 0:
            return
        now_s = self._clock.now_s()
        specs = {(spec.id, spec.url): spec for spec in self._pool.specs}
        self._due_s = {key: due_s for key, due_s in self._due_s.items() if key in specs}
        for key, spec in specs.items():
            if key not in self._running and now_s >= self._due_s.get(key, now_s):
                self._due_s[key] = now_s + self._config.interval_s
                self._running[key] = asyncio.get_running_loop().create_task(self._check(key, spec))

    async def _check(self, key: tuple[str, str], spec: BackendSpec) -> None:
        try:
            ok = await self._ask(spec)
            now_s = self._clock.now_s()
            self._pool.probed(spec, ok, now_s)
            if not ok:
                self._due_s[key] = min(self._due_s.get(key, now_s), now_s + UNSEEN_INTERVAL_S)
        finally:
            del self._running[key]

    async def _ask(self, spec: BackendSpec) -> bool:
        try:
            async with asyncio.timeout(self._config.timeout_s):
                return await self._probe(spec)
        except (OSError, FovealError):  # a time-out is an OSError
            return False
