"""W3C Trace Context: the `traceparent` header, read, made and written without any library.

Source: https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

__all__ = ["TraceContext", "new_trace", "parse_traceparent"]

_HEADER = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_RATIO_BITS = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span's place in a trace. Neither id is 0."""

    trace_id: int
    """128 bits."""
    span_id: int
    """64 bits."""
    sampled: bool

    def header(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"


def parse_traceparent(header: bytes | str | None) -> TraceContext | None:
    """None for a header that is missing or breaks the rules: a new trace begins then."""
    if not header:
        return None
    text = header.decode("latin-1") if isinstance(header, bytes) else header
    match = _HEADER.fullmatch(text.strip())
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
        return None
    trace_id, span_id = int(match[2], 16), int(match[3], 16)
    if not trace_id or not span_id:
        return None
    return TraceContext(trace_id, span_id, bool(int(match[4], 16) & 1))


def new_trace(sample_ratio: float, draw: random.Random) -> TraceContext:
    """A root, sampled with probability `sample_ratio` by its id, as OpenTelemetry's TraceIdRatioBased does it."""
    trace_id = draw.getrandbits(128) or 1
    return TraceContext(trace_id, draw.getrandbits(64) or 1, (trace_id & _RATIO_BITS) < sample_ratio * (1 << 64))
