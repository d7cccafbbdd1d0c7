"""The seam of tracing. Where it is off there is no tracer at all, and a request pays for one comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["AttributeValue", "RequestTrace", "SpanReport", "Tracer"]

AttributeValue = str | bool | int | float | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """A request's place in a trace, from its beginning on."""

    traceparent: str
    """To be sent along: to the backend, into logs. With the sampled flag off nobody downstream records."""
    span: object | None = None
    """The tracer's own; None for a request that is not sampled: nothing of it needs to be collected."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return self.traceparent[3:35]


@dataclass(frozen=True, slots=True)
class SpanReport:
    """One request, told at its end. Times are seconds of the monotonic clock."""

    name: str
    start_s: float
    end_s: float
    attributes: Mapping[str, AttributeValue]
    """OpenTelemetry's names where there are some."""
    stages: Sequence[tuple[str, float, float]] = ()
    """(name, begin, end): each becomes a child span."""
    error: str = ""
    """An error code; "" if it went well."""


class Tracer(Protocol):
    """Called on one event loop; never blocks, never raises for what a client sent."""

    def begin(self, traceparent: bytes | None, start_s: float) -> RequestTrace:
        """Continue the client's trace if the header is valid, else begin one. The client's sampling decision holds."""
        ...

    def end(self, trace: RequestTrace, report: SpanReport) -> None:
        """Only for a trace with a span, once."""
        ...

    def close(self) -> None:
        """Export what is left. May block for as long as the exporter's time-out."""
        ...
