"""The report of a load test as a table for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table

from foveal.evaluation.load.report import Percentiles, Report

__all__ = ["report_table"]

LAG_WARNING_MS = 50.0
"""Requests sent this late (P99) say that the load generator, not the server, was the limit."""


def report_table(report: Report, title: str) -> RenderableType:
    """Latencies in milliseconds, then rates, errors and goodput."""
    latencies = Table(title=title, title_justify="left")
    latencies.add_column("ms")
    for name in ("mean", "P50", "P95", "P99", "max"):
        latencies.add_column(name, justify="right")
    rows = {
        "time to first token": report.ttft,
        "time per output token": report.tpot,
        "inter-token latency": report.itl,
        "end to end": report.e2e,
    }
    rows |= {f"time to first token, {name}": values for name, values in report.ttft_by_priority.items()}
    for name, values in rows.items():
        latencies.add_row(name, *_cells(values))

    rates = Table.grid(padding=(0, 2))
    rates.add_row("requests", f"{report.num_ok} of {report.num_requests} complete in {report.duration_s:.2f} s")
    rates.add_row(
        "throughput", f"{report.requests_per_s:.2f} requests/s, {report.output_tokens_per_s:.1f} output tok/s"
    )
    cached = (
        f", {report.cached_tokens / report.prompt_tokens:.0%} from the prefix cache" if report.prompt_tokens else ""
    )
    rates.add_row("prompt tokens", f"{report.prompt_tokens:,} ({report.prompt_tokens_per_s:.1f} tok/s{cached})")
    rates.add_row("output tokens", f"{report.completion_tokens:,}")
    rates.add_row("in flight", f"at most {report.peak_concurrency}")
    if report.sla.is_set:
        rates.add_row("goodput", f"{report.goodput_per_s:.2f} requests/s within the SLA ({report.good_fraction:.1%})")
    for kind, count in report.errors.items():
        rates.add_row("[red]failed[/]", f"{count} x {kind}")
    if report.client_lag.p99_ms > LAG_WARNING_MS:
        rates.add_row("[yellow]warning[/]", f"requests left up to {report.client_lag.max_ms:.0f} ms late: slow client")
    return Group(latencies, rates)


def _cells(values: Percentiles) -> list[str]:
    if not values.count:
        return ["-"] * 5
    return [f"{v:.1f}" for v in (values.mean_ms, values.p50_ms, values.p95_ms, values.p99_ms, values.max_ms)]
