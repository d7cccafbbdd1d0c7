"""The comparison of engines as a table for the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

__all__ = ["peers_table"]


def peers_table(report: dict[str, Any]) -> RenderableType:
    """One table of speed per workload, one of quality, and a line for each engine that has none."""
    parts: list[RenderableType] = [_speed(report, workload) for workload in report["workloads"]]
    parts.append(_quality(report))
    failures = Table.grid(padding=(0, 2))
    for row in report["engines"]:
        if row["error"]:
            failures.add_row(f"[red]{row['engine']}[/]", row["error"].strip().splitlines()[-1][:200])
    return Group(*parts, failures)


def _speed(report: dict[str, Any], workload: str) -> Table:
    table = Table(
        title=f"{report['model']}, {workload} tokens, {report['threads']} threads, medians of {report['rounds']} rounds",
        title_justify="left",
    )
    for name in (
        "engine",
        "bits",
        "KV",
        "decode tok/s",
        "lowest-highest",
        "x ours",
        "prefill tok/s",
        "TTFT ms",
        "GB/s",
    ):
        table.add_column(name, justify="left" if name in ("engine", "KV") else "right")
    table.add_column("of roofline", justify="right")
    rows = [row for row in report["engines"] if workload in row["speed"]]
    for row in sorted(rows, key=lambda row: -float(row["speed"][workload]["decode_tok_s"])):
        speed = row["speed"][workload]
        table.add_row(
            row["engine"],
            str(row["loaded"]["weight_bits"]),
            row["loaded"]["kv"],
            f"{speed['decode_tok_s']:.1f}",
            f"{speed['decode_lowest']:.0f}-{speed['decode_highest']:.0f}",
            _number(speed["decode_over_best_of_ours"], ".2f"),
            f"{speed['prefill_tok_s']:.0f}",
            f"{speed['ttft_ms']:.0f}",
            f"{speed['gb_per_s']:.0f}",
            _number(speed["roofline"], ".0%"),
        )
    return table


def _quality(report: dict[str, Any]) -> Table:
    table = Table(title=f"{report['model']}, against transformers in float32", title_justify="left")
    for name in ("engine", "perplexity", "ratio", "top-1", "logit error", "KL", "greedy"):
        table.add_column(name, justify="left" if name == "engine" else "right")
    for row in report["engines"]:
        quality = row["quality"]
        if quality is None:
            continue
        table.add_row(
            row["engine"],
            _number(quality["perplexity"], ".2f"),
            _number(quality["perplexity_ratio"], ".4f"),
            _number(quality["top1_agreement"], ".1%"),
            _number(quality["logit_error"], ".4f"),
            _number(quality["kl"], ".5f"),
            _number(quality["greedy_agreement"], ".0%"),
        )
    return table


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
