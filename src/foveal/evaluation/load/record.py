"""What is known about one request once it has ended."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from foveal.core.priority import Priority

__all__ = ["RequestRecord"]


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """Times are seconds of one monotonic clock."""

    index: int
    start_s: float
    """When the request was due. Latencies count from here, so that a slow client or server cannot hide waiting time
    (coordinated omission)."""
    sent_s: float
    """When it really left; later than `start_s` only if the load generator could not keep up."""
    end_s: float
    """When the stream ended, or the error was known."""
    text_s: tuple[float, ...] = ()
    """Arrival of each event that carried text."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    error: str | None = None
    """Kind of the failure, "HTTP 503 overloaded" for one; None if the answer is complete."""
    priority: Priority | None = None

    @property
    def ok(self) -> bool:
        return self.error is None

    @property
    def ttft_s(self) -> float | None:
        """Time to the first text; None if none came."""
        return self.text_s[0] - self.start_s if self.text_s else None

    @property
    def e2e_s(self) -> float:
        return self.end_s - self.start_s

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first; None for answers of one token or one event."""
        if self.completion_tokens < 2 or len(self.text_s) < 2:
            return None
        return (self.text_s[-1] - self.text_s[0]) / (self.completion_tokens - 1)

    @property
    def gaps_s(self) -> list[float]:
        """Inter-token latencies: gaps between successive events with text (an event may hold several tokens)."""
        return [later - earlier for earlier, later in pairwise(self.text_s)]
