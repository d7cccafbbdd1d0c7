"""An answer that is kept: the bytes a client got, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CachedAnswer"]

_OVERHEAD_BYTES = 600
"""Of the objects that hold one answer, measured with sys.getsizeof."""


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """Complete and successful; of a stream all its events."""

    tenant: str
    body: bytes
    content_type: bytes
    stored_at: float
    """Seconds since 1970 (UTC)."""
    prompt_tokens: int = 0
    output_tokens: int = 0
    origin: tuple[str, str, str] = ("", "", "")
    """Model, version and backend that gave it: feedback on it is theirs."""

    @property
    def num_bytes(self) -> int:
        return len(self.body) + len(self.content_type) + _OVERHEAD_BYTES

    def age_s(self, now: float) -> float:
        return max(0.0, now - self.stored_at)
