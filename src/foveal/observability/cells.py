"""Counters and histograms for one event loop: no lock and no label lookup per update.

prometheus_client's own objects take a lock and resolve labels on each call; a request through the gateway updates some
twenty of them (docs/decisions/0023). A histogram here only appends; values are sorted into buckets many at a time.
"""

from __future__ import annotations

import numpy as np

__all__ = ["CounterCell", "HistogramCell"]

_MAX_PENDING = 1024


class CounterCell:
    """One series of a counter. Add to `value`; never lower it."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, by: float = 1.0) -> None:
        self.value += by


class HistogramCell:
    """One series of a histogram. An observation equal to an edge counts below it, as in Prometheus (le)."""

    __slots__ = ("_counts", "_edges", "_sum", "pending")

    def __init__(self, edges: tuple[float, ...]) -> None:
        self._edges = edges
        self._counts = np.zeros(len(edges) + 1, np.int64)
        self._sum = 0.0
        self.pending: list[float] = []
        """Values not yet in buckets. Append here where each tenth of a microsecond counts, and call `settle` now and then."""

    def observe(self, value: float) -> None:
        self.pending.append(value)
        if len(self.pending) >= _MAX_PENDING:
            self.settle()

    def settle(self) -> None:
        """Sort what is pending into the buckets. Readers do it by themselves."""
        if not self.pending:
            return
        values = np.asarray(self.pending, np.float64)
        self.pending.clear()
        indices = np.searchsorted(self._edges, values)
        self._counts += np.bincount(indices, minlength=len(self._counts))
        self._sum += float(values.sum())

    @property
    def count(self) -> int:
        return int(self._counts.sum()) + len(self.pending)

    @property
    def sum(self) -> float:
        self.settle()
        return self._sum

    def cumulated(self) -> list[tuple[str, float]]:
        """(upper edge as text, observations up to it), ending with +Inf."""
        self.settle()
        # Edges as prometheus_client writes them, so that the le values stay what they were.
        edges = [*(repr(float(edge)) for edge in self._edges), "+Inf"]
        return list(zip(edges, np.cumsum(self._counts).tolist(), strict=True))
