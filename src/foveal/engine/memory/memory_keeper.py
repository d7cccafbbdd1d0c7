"""Reads memory now and then and makes the engine follow the guard's decisions."""

from __future__ import annotations

from collections import Counter

import structlog

from foveal.core.errors import OverloadedError
from foveal.engine.memory.kv_pages import release_pages
from foveal.engine.memory.memory_guard import CRITICAL, MemoryGuard
from foveal.engine.memory.memory_reading import MemoryReader
from foveal.engine.scheduling.request import Request
from foveal.engine.scheduling.scheduler import Scheduler
from foveal.kernels.attention_batch import KVCache

__all__ = ["MemoryKeeper"]

_log = structlog.get_logger(__name__)

CHECK_EVERY_S = 0.25
RETRY_AFTER_S = 2.0


class MemoryKeeper:
    """One thread: the engine loop's. `encoder_patch_bytes` is what encoding takes per patch, features included."""

    def __init__(
        self, reader: MemoryReader, scheduler: Scheduler, kv_cache: KVCache, *, encoder_patch_bytes: int = 0
    ) -> None:
        self._reader = reader
        self._scheduler = scheduler
        self._kv_cache = kv_cache
        self._encoder_patch_bytes = encoder_patch_bytes
        self._guard = MemoryGuard(scheduler.config.max_num_seqs)
        self._next_s = 0.0
        self.reading = reader.read()
        """The last one."""
        self.actions: Counter[str] = Counter()
        self.num_refused = 0

    def check(self, now_s: float) -> None:
        """Reads at most every quarter of a second; cheap otherwise."""
        if now_s < self._next_s:
            return
        self._next_s = now_s + CHECK_EVERY_S
        self.reading = self._reader.read()
        scheduler = self._scheduler
        decision = self._guard.decide(
            self.reading, num_running=scheduler.num_running, has_prefixes=scheduler.num_cached_blocks > 0
        )
        if not decision.actions and not decision.preempts:
            return
        scheduler.feature_cache_share = decision.feature_share
        scheduler.max_num_seqs = decision.max_num_seqs
        if decision.preempts:
            scheduler.preempt_down_to(decision.max_num_seqs)
        released = 0
        if decision.drop_prefixes or decision.preempts:
            scheduler.clear_caches()
            released = release_pages(self._kv_cache, scheduler.withhold_blocks())
        elif "more_sequences" in decision.actions or "grow_features" in decision.actions:
            scheduler.restore_blocks()
        for action in decision.actions:
            self.actions[action] += 1
            _log.warning(
                "memory_guard",
                action=action,
                used_bytes=self.reading.used_bytes,
                limit_bytes=self.reading.limit_bytes,
                limit=self.reading.source,
                max_num_seqs=decision.max_num_seqs,
                feature_cache_share=decision.feature_share,
                released_bytes=released,
            )

    def admit(self, request: Request, now_s: float) -> None:
        """Raises OverloadedError while there is no memory for another request."""
        self.check(now_s)
        patches = sum(image.encode_tokens for image in request.images)
        features = sum(image.feature_bytes for image in request.images)
        needed = patches * self._encoder_patch_bytes + features
        room = int(CRITICAL * self.reading.limit_bytes) - self.reading.used_bytes
        if not self._guard.state.refuses and (not request.images or needed <= room):
            return
        self.num_refused += 1
        what = f", and its {len(request.images)} images take up to {needed:,} more" if request.images else ""
        raise OverloadedError(
            f"{self.reading.used_bytes:,} bytes of memory are used{what}; {self.reading.source} is "
            f"{self.reading.limit_bytes:,}. Try again later; if this goes on, lower --max-num-seqs or "
            "--memory-utilization, or give the engine more memory.",
            retry_after_s=RETRY_AFTER_S,
        )
