"""Finds the backend that is far slower than its peers, which no error count shows."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from foveal.gateway.resilience.config import OutlierConfig

__all__ = ["Slowness", "slowest_outlier"]

SMOOTHING = 0.1


class Slowness:
    """Smoothed first-byte time of a backend per priced time (no unit), so that large pictures do not look slow."""

    def __init__(self) -> None:
        self.value = 0.0
        self.num_requests = 0

    def record(self, first_byte_s: float, cost_ms: float) -> None:
        ratio = first_byte_s * 1e3 / cost_ms
        self.num_requests += 1
        # The mean of the first few, then exponential.
        self.value += (ratio - self.value) * max(SMOOTHING, 1.0 / self.num_requests)


def slowest_outlier(peers: Mapping[str, Slowness], num_out: int, config: OutlierConfig) -> str | None:
    """The one to eject among `peers` (backends of one model in rotation); None if all are well enough.

    `num_out` are already out for being slow. With fewer than three peers nobody can say who is the odd one.
    """
    judged = {name: slowness.value for name, slowness in peers.items() if slowness.num_requests >= config.min_requests}
    if len(judged) < 3 or num_out + 1 > config.max_fraction * (len(peers) + num_out):
        return None
    worst = max(judged, key=lambda name: judged[name])
    others = median(value for name, value in judged.items() if name != worst)
    return worst if judged[worst] > config.slowness * others else None
