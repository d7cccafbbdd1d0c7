"""What happened between the first and the last of several scrapes. All rules read this and nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from foveal.observability.diagnosis.scrape import Sample, Scrape

__all__ = ["Window"]


@dataclass(frozen=True)
class Window:
    """At least two scrapes of one server, oldest first.

    `labels` select: series whose labels have these values; all others are summed. Asking for what is not there gives 0 for
    counters and None for the rest.
    """

    scrapes: Sequence[Scrape]

    def __post_init__(self) -> None:
        if len(self.scrapes) < 2:
            raise ValueError("a window needs two scrapes or more")

    @property
    def seconds(self) -> float:
        return self.scrapes[-1].at_s - self.scrapes[0].at_s

    def has(self, name: str) -> bool:
        return name in self.scrapes[-1].samples

    def increase(self, name: str, **labels: str) -> float:
        """Of a counter. A counter that restarted counts from 0, as in Prometheus."""
        total = 0.0
        for earlier, later in zip(self.scrapes, self.scrapes[1:], strict=False):
            before = {tuple(sorted(one.labels.items())): one.value for one in _chosen(earlier, name, labels)}
            for one in _chosen(later, name, labels):
                past = before.get(tuple(sorted(one.labels.items())), 0.0)
                total += one.value - past if one.value >= past else one.value
        return total

    def rate(self, name: str, **labels: str) -> float:
        """Increase per second."""
        return self.increase(name, **labels) / self.seconds if self.seconds > 0 else 0.0

    def mean(self, name: str, **labels: str) -> float | None:
        """Of a gauge over the scrapes, its series summed."""
        values = self._gauge(name, labels)
        return sum(values) / len(values) if values else None

    def highest(self, name: str, **labels: str) -> float | None:
        """Of a gauge over the scrapes, its series summed."""
        return max(self._gauge(name, labels), default=None)

    def latest(self, name: str, **labels: str) -> float | None:
        """Of a gauge, its series summed."""
        values = self._gauge(name, labels)
        return values[-1] if values else None

    def values_of(self, name: str, label: str) -> list[str]:
        """The values a label has in the last scrape, in order."""
        found = (one.labels.get(label) for one in self.scrapes[-1].samples.get(name, ()))
        return sorted({value for value in found if value is not None})

    def count(self, histogram: str, **labels: str) -> float:
        return self.increase(f"{histogram}_count", **labels)

    def average(self, histogram: str, **labels: str) -> float | None:
        """Mean of what was observed in the window; None if nothing was."""
        count = self.count(histogram, **labels)
        return self.increase(f"{histogram}_sum", **labels) / count if count else None

    def quantile(self, histogram: str, q: float, **labels: str) -> float | None:
        """Interpolated within its bucket, as histogram_quantile does; None if nothing was observed.

        Beyond the last finite edge the answer is that edge.
        """
        name = f"{histogram}_bucket"
        texts = {one.labels["le"] for one in self.scrapes[-1].samples.get(name, ()) if "le" in one.labels}
        edges = sorted((float(text), text) for text in texts)
        counts = [(edge, self.increase(name, le=text, **labels)) for edge, text in edges]
        if not counts or counts[-1][1] <= 0:
            return None
        rank, below, low = q * counts[-1][1], 0.0, 0.0
        for edge, count in counts:
            if count >= rank and count > below:
                if math.isinf(edge):
                    return low
                return low + (edge - low) * (rank - below) / (count - below)
            below, low = count, (low if math.isinf(edge) else edge)
        return low

    def _gauge(self, name: str, labels: dict[str, str]) -> list[float]:
        found = (_chosen(scrape, name, labels) for scrape in self.scrapes)
        return [sum(one.value for one in samples) for samples in found if samples]


def _chosen(scrape: Scrape, name: str, labels: dict[str, str]) -> list[Sample]:
    wanted = labels.items()
    return [one for one in scrape.samples.get(name, ()) if wanted <= one.labels.items()]
