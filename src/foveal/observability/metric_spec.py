"""What one metric is, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["MODEL_LABEL", "SLA_EDGES_S", "Component", "Kind", "MetricSpec"]

Kind = Literal["counter", "gauge", "histogram"]
Source = Literal["request", "snapshot"]
Component = Literal["engine", "gateway"]

MODEL_LABEL = "model_name"

SLA_EDGES_S = (0.1, 0.5, 2.0)
"""Class deadlines of P0, P1 and P2: each latency histogram has a bucket edge on each, so that compliance is exact."""


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric. `name` is as exposed, so that counters end in _total. Raises ValueError if it contradicts itself."""

    name: str
    kind: Kind
    help: str
    unit: str = ""
    """seconds, bytes, tokens, ratio, ... or empty for a plain count."""
    labels: tuple[str, ...] = ()
    """An engine's metrics have model_name besides: it serves one model. A gateway's have exactly these."""
    buckets: tuple[float, ...] = ()
    vllm: str = ""
    """The vLLM metric that means the same."""
    source: Source = "request"
    """`request`: recorded as requests proceed. `snapshot`: read at scrape time from what the process knows."""
    component: Component = "engine"
    """Whose /metrics page it is on."""

    def __post_init__(self) -> None:
        if (self.kind == "counter") != self.name.endswith("_total"):
            raise ValueError(f"{self.name}: counters and only counters end in _total")
        if (self.kind == "histogram") != bool(self.buckets):
            raise ValueError(f"{self.name}: histograms and only histograms have buckets")
        if list(self.buckets) != sorted(set(self.buckets)):
            raise ValueError(f"{self.name}: buckets must increase")

    @property
    def label_names(self) -> tuple[str, ...]:
        """All labels, in the order in which values are given."""
        return (MODEL_LABEL, *self.labels) if self.component == "engine" else self.labels

    @property
    def series_names(self) -> tuple[str, ...]:
        """What a query may select: a histogram is three series."""
        if self.kind == "histogram":
            return (f"{self.name}_bucket", f"{self.name}_sum", f"{self.name}_count")
        return (self.name,)
