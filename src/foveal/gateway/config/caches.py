"""The response cache: answers that are determined by their request are kept and shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from foveal.gateway.config.fields import ByteSize, Range, Seconds

__all__ = ["CacheConfig"]

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """Only requests with temperature 0 or a seed are cached, and never across tenants."""

    enabled: bool = True
    memory_bytes: ByteSize = 64 * MIB
    disk_bytes: ByteSize = 0
    """In the state file's directory; survives a restart. 0 keeps answers in memory only."""
    max_answer_bytes: ByteSize = 1 * MIB
    """Larger answers are not kept."""
    ttl_s: Seconds = 3600.0
    tenant_share: Annotated[float, Range(above=0.0, most=1.0)] = 0.5
    """Of each budget that one tenant may fill."""
    single_flight: bool = True
    """Identical requests at the same time become one."""
