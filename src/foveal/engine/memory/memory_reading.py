"""How much memory is used, of how much, and who says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["MemoryReader", "MemoryReading"]


@dataclass(frozen=True, slots=True)
class MemoryReading:
    used_bytes: int
    limit_bytes: int
    source: str
    """For messages: "the machine's memory", "the cgroup limit", "--memory-limit-mib"."""

    @property
    def pressure(self) -> float:
        """Used share of the limit; beyond 1 something is about to be killed."""
        return self.used_bytes / self.limit_bytes

    @property
    def available_bytes(self) -> int:
        return max(0, self.limit_bytes - self.used_bytes)


class MemoryReader(Protocol):
    def read(self) -> MemoryReading:
        """Where the least is left, as a share."""
