"""Answers of deterministic requests: memory first, then the disk if there is one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from foveal.gateway.caching.cached_answer import CachedAnswer
from foveal.gateway.caching.disk_cache import DiskCache
from foveal.gateway.caching.memory_cache import MemoryCache
from foveal.gateway.config.caches import CacheConfig

__all__ = ["ResponseCache"]


class ResponseCache:
    """Belongs to one event loop. `state` is the gateway's state file; the disk cache lies beside it. `wall_s`: since 1970.

    Raises ConfigurationError if the disk cache's file cannot be made.
    """

    def __init__(self, config: CacheConfig, state: Path | None = None, wall_s: Callable[[], float] = time.time) -> None:
        self._config = config
        self._wall_s = wall_s
        self.memory = MemoryCache(config.memory_bytes, config.ttl_s, config.tenant_share)
        self.disk: DiskCache | None = None
        # Also while caching is off: a reload may turn it on.
        if state is not None and config.disk_bytes:
            path = state.with_name(f"{state.stem}-answers.db")
            self.disk = DiskCache(path, config.disk_bytes, config.ttl_s, config.tenant_share)

    async def open(self) -> None:
        if self.disk is not None:
            await self.disk.open(self._wall_s())

    @property
    def enabled(self) -> bool:
        return self._config.enabled

    async def find(self, key: bytes, tenant: str) -> CachedAnswer | None:
        """Does not suspend unless the answer is on disk and not in memory."""
        now = self._wall_s()
        answer = self.memory.get(key, tenant, now)
        if answer is None and self.disk is not None and self.disk.has(key):
            answer = await self.disk.get(key, tenant, now)
            if answer is not None:
                self.memory.put(key, answer)
        return answer

    def put(
        self,
        key: bytes,
        tenant: str,
        body: bytes,
        content_type: bytes,
        *,
        prompt_tokens: int = 0,
        output_tokens: int = 0,
        origin: tuple[str, str, str] = ("", "", ""),
    ) -> bool:
        """Keeps a complete, successful answer that no fallback gave. False if it is too large or caching is off."""
        if not self._config.enabled or len(body) > self._config.max_answer_bytes:
            return False
        now = self._wall_s()
        answer = CachedAnswer(tenant, body, content_type, now, prompt_tokens, output_tokens, origin)
        kept = self.memory.put(key, answer)
        if self.disk is not None:
            self.disk.put(key, answer, now)
        return kept

    def reload(self, config: CacheConfig) -> None:
        """New budgets at once. Whether there is a disk layer cannot change while running."""
        self._config = config
        self.memory.configure(config.memory_bytes, config.ttl_s, config.tenant_share)
        if self.disk is not None:
            self.disk.configure(config.disk_bytes, config.ttl_s, config.tenant_share)
        if not config.enabled:
            self.memory.clear()

    async def close(self) -> None:
        """Writes everything down."""
        if self.disk is not None:
            await asyncio.to_thread(self.disk.close)
