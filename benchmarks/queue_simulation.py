"""What the gateway's queue promises under overload, simulated: P0's wait, who is shed, goodput, shares.

    python benchmarks/queue_simulation.py [--seconds 600] [--seeds 3]

The gateway's own dispatcher, queue, headroom and pool; arrivals and backends are simulated, service takes 0.2 to 5 s
(lognormal), prices miss the real cost by a lognormal factor of sigma 0.3. No wall time is measured: any machine gives
the same figures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]
from harness.record import write_result  # noqa: E402

from foveal.core.priority import Priority  # noqa: E402
from foveal.gateway.queueing.config import HeadroomConfig, QueueConfig  # noqa: E402
from support.gateway_simulation import Report, ServiceTime, Simulation, Stream, simulate  # noqa: E402

P0, P1, P2 = Priority
SHORT = ServiceTime(median_s=0.8, sigma=0.6)


def mix(p0: float, p1: float, p2: float, burst: float = 1.0) -> tuple[Stream, ...]:
    """Loads as parts of the capacity; two tenants per class."""
    return (
        Stream("urgent", P0, p0, SHORT, patience_s=2.0, burst=burst),
        *(Stream(f"middle {name}", P1, p1 / 2) for name in "ab"),
        *(Stream(f"least {name}", P2, p2 / 2, patience_s=30.0) for name in "ab"),
    )


BASE = Simulation(mix(0.3, 0.7, 2.0), num_backends=4, slots=8)
CASES = {
    "4 backends, 8 slots each": BASE,
    "no slots kept for P0": replace(BASE, headroom=HeadroomConfig(max_fraction=0.0)),
    "plain ageing (share of the aged unbounded)": replace(BASE, queue=QueueConfig(max_requests=200, aged_share=0.99)),
    "8 backends, 16 slots each": replace(BASE, num_backends=8, slots=16),
    "2 backends, 8 slots each": replace(BASE, num_backends=2),
    "2 backends, 8 slots + 4 urgent (batching)": replace(BASE, num_backends=2, urgent_slots=4),
    "1 backend, 4 slots + 6 urgent (batching)": replace(BASE, num_backends=1, slots=4, urgent_slots=6),
    "P0 in waves (x2 a tenth of the time)": replace(BASE, streams=mix(0.3, 0.7, 2.0, burst=2.0)),
    "mostly P1": replace(BASE, streams=mix(0.3, 2.0, 0.7)),
    "P0 floods": replace(BASE, streams=mix(2.0, 0.5, 0.5)),
    "no overload (0.8)": replace(BASE, streams=mix(0.2, 0.3, 0.3)),
}


def figures(reports: Sequence[Report]) -> dict[str, Any]:
    total_s = mean(sum(tenant.work_s for tenant in report.by_tenant.values()) for report in reports)
    return {
        "goodput": round(mean(report.goodput for report in reports), 4),
        "slots_kept_free": round(mean(report.mean_reserved for report in reports), 2),
        "p0_within_100_ms": round(mean(report.by_class[P0].within(0.1) for report in reports), 4),
        "p0_requests": sum(report.by_class[P0].arrived for report in reports),
        "p0_wait_p999_s": round(mean(report.by_class[P0].wait_quantile_s(0.999) for report in reports), 3),
        "shed": {
            priority.name: round(mean(report.by_class[priority].shed_fraction for report in reports), 4)
            for priority in Priority
        },
        "share_of_work": {
            priority.name: round(mean(report.by_class[priority].work_s for report in reports) / total_s, 4)
            for priority in Priority
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="simulated time per case (default 600)")
    parser.add_argument("--seeds", type=int, default=3, help="repetitions per case (default 3)")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for name, case in track(CASES.items(), description="simulating"):
        case = replace(case, duration_s=options.seconds)
        results[name] = figures([simulate(replace(case, seed=seed)) for seed in range(options.seeds)])
    table = Table("case", "P0 <= 100 ms", "kept free", "goodput", "shed P0", "P1", "P2", "work P0", "P1", "P2")
    for name, row in results.items():
        table.add_row(
            name,
            f"{row['p0_within_100_ms']:.2%}",
            f"{row['slots_kept_free']:.1f}",
            f"{row['goodput']:.1%}",
            *(f"{row['shed'][priority.name]:.1%}" for priority in Priority),
            *(f"{row['share_of_work'][priority.name]:.1%}" for priority in Priority),
        )
    Console(width=150).print(table)
    Console().print(f"written to {write_result('queue_simulation', results).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
