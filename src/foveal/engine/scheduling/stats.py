"""Gauges and counters of the scheduler."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SchedulerCounters", "SchedulerStats"]


@dataclass(slots=True)
class SchedulerCounters:
    """Since the start."""

    steps: int = 0
    prompt_tokens: int = 0
    """Prompt tokens of finished prefills, each request once."""
    generation_tokens: int = 0
    prefix_cache_queries: int = 0
    """Prompt tokens looked up at first admission."""
    prefix_cache_hits: int = 0
    """Prompt tokens found at first admission."""
    num_preemptions: int = 0
    encoded_images: int = 0
    finished: int = 0


@dataclass(frozen=True, slots=True)
class SchedulerStats:
    """One reading."""

    num_running: int
    num_waiting: int
    kv_blocks_total: int
    kv_blocks_owned: int
    kv_blocks_cached: int
    feature_cache_bytes: int
    feature_pinned_bytes: int
    feature_cache_queries: int
    feature_cache_hits: int
    counters: SchedulerCounters
    """A copy."""
