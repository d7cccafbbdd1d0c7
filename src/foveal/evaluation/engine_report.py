"""What `foveal bench engine` prints and writes: our engine alone, offline."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from foveal.evaluation.peers.figures import Measurement, figures_of
from foveal.evaluation.peers.workload import Workload

__all__ = ["EngineBatch", "engine_report"]


@dataclass(frozen=True)
class EngineBatch:
    """One round of one workload."""

    measurement: Measurement
    first_s: tuple[float, ...]
    """Per request: until its first token, all requests queued at once."""
    cpu_s: float
    """Of the process, over the whole batch."""
    steps: int

    @property
    def cpu_share(self) -> float:
        """Busy cores, on average."""
        return self.cpu_s / self.measurement.total_s


def engine_report(
    model: str, settings: dict[str, Any], batches: Sequence[EngineBatch], *, weight_bytes: int, kv_bytes_per_token: int
) -> dict[str, Any]:
    """Ready for JSON; rows in the order in which workloads first came."""
    rows = []
    for workload in dict.fromkeys(batch.measurement.workload for batch in batches):
        found = [batch for batch in batches if batch.measurement.workload == workload]
        rows.append(_row(workload, found, weight_bytes, kv_bytes_per_token))
    return {
        "model": model,
        "settings": settings,
        "weight_bytes": weight_bytes,
        "kv_bytes_per_token": kv_bytes_per_token,
        "rows": rows,
        "measurements": [batch.measurement.as_dict() for batch in batches],
    }


def _row(workload: Workload, batches: Sequence[EngineBatch], weight_bytes: int, kv_bytes: int) -> dict[str, Any]:
    measurements = [batch.measurement for batch in batches]
    figures = figures_of(measurements, weight_bytes=weight_bytes, kv_bytes_per_token=kv_bytes)
    waits = sorted(wait for batch in batches for wait in batch.first_s)
    output = workload.concurrency * workload.new_tokens
    return {
        **figures.as_dict(),
        **asdict(workload),
        "ttft_p50_ms": 1e3 * statistics.median(waits),
        "ttft_max_ms": 1e3 * waits[-1],
        "tpot_ms": 1e3 * statistics.median(m.step_s for m in measurements),
        "output_tok_s": statistics.median(output / m.total_s for m in measurements),
        "requests_s": statistics.median(workload.concurrency / m.total_s for m in measurements),
        "busy_cores": statistics.median(batch.cpu_share for batch in batches),
        "steps": batches[0].steps,
    }
