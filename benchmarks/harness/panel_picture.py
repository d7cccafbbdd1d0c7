"""Panels of a dashboard as a picture, from what a Prometheus answers to their very queries."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from foveal.observability.dashboards.panel import Dashboard, Panel
from harness.prometheus import Prometheus, Series

__all__ = ["draw_dashboard"]

_RATE_INTERVAL = "8s"
_COLORS = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#eeca3b", "#9d755d", "#bab0ac", "#ff9da6")
_MEANING = {"success": "#54a24b", "shed": "#f58518", "error": "#e45756", "timeout": "#b279a2", "aborted": "#bab0ac"}


def draw_dashboard(
    dashboard: Dashboard,
    rows: Sequence[str],
    prometheus: Prometheus,
    start_s: float,
    end_s: float,
    phases: Mapping[str, float],
    path: Path,
    title: str,
) -> dict[str, int]:
    """Panel -> series with data. `phases`: name -> when it began, drawn as lines. `rows` are titles of rows to draw."""
    chosen = [row for row in dashboard.rows if row.title in rows]
    columns = 3
    heights = [math.ceil(len(row.panels) / columns) for row in chosen]
    tall = 2.1 * sum(heights) + 0.75 * len(chosen) + 0.5
    figure = plt.figure(figsize=(17, tall), dpi=90)
    figure.suptitle(title, x=0.012, y=1 - 0.12 / tall, ha="left", va="top", fontsize=13, fontweight="bold")
    outer = figure.add_gridspec(len(chosen), 1, height_ratios=heights, hspace=0.75 / 2.1 * len(chosen) / sum(heights))
    counts: dict[str, int] = {}
    for place, row, height in zip(outer, chosen, heights, strict=True):
        inner = place.subgridspec(height, columns, hspace=0.4, wspace=0.13)
        for number, panel in enumerate(row.panels):
            axes = figure.add_subplot(inner[number // columns, number % columns])
            counts[panel.title] = _draw(axes, panel, prometheus, start_s, end_s, phases)
            if number == 0:
                axes.annotate(
                    row.title,
                    (0, 1),
                    (-24, 27),
                    xycoords="axes fraction",
                    textcoords="offset points",
                    fontsize=11,
                    fontweight="bold",
                    color="#345",
                )
            if number < columns:
                _name_phases(axes, phases, start_s)
    figure.subplots_adjust(left=0.045, right=0.99, top=1 - 1.05 / tall, bottom=0.3 / tall)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
    return counts


def _draw(
    axes: Axes, panel: Panel, prometheus: Prometheus, start_s: float, end_s: float, phases: Mapping[str, float]
) -> int:
    lines: list[tuple[str, Series]] = []
    for query in panel.queries:
        expr = query.expr.replace("$__rate_interval", _RATE_INTERVAL).replace("$model", ".*")
        found = prometheus.range(expr, start_s, end_s)
        lines += [(_legend(query.legend, one), one) for one in found if panel.maximum is not None or _moves(one)]
    lines = lines[: len(_COLORS)]
    colors = [_MEANING.get(name, color) for (name, _), color in zip(lines, _COLORS, strict=False)]
    if panel.stacked and lines:
        times = sorted({at for _, series in lines for at in series.times_s})
        stacks = [[_at(series, at) for at in times] for _, series in lines]
        axes.stackplot(
            [at - start_s for at in times], stacks, labels=[name for name, _ in lines], colors=colors, alpha=0.75
        )
    else:
        for (name, series), color in zip(lines, colors, strict=True):
            axes.plot([at - start_s for at in series.times_s], series.values, label=name, color=color, linewidth=1.3)
    for at in phases.values():
        axes.axvline(at - start_s, color="#999", linewidth=0.6, linestyle=":")
    axes.set_title(panel.title, fontsize=9, loc="left", color="#222", pad=4)
    axes.set_xlim(0, end_s - start_s)
    axes.set_ylim(bottom=0, top=1.05 * panel.maximum if panel.maximum else None)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _amount(value, panel.unit)))
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if lines:
        axes.legend(
            fontsize=6.5,
            ncols=3 if len(lines) > 4 else 2,
            loc="upper left",
            bbox_to_anchor=(0, 0.95),
            framealpha=0.6,
            borderpad=0.25,
        )
    else:
        axes.text(0.5, 0.5, "nothing happened", transform=axes.transAxes, ha="center", fontsize=8, color="#999")
    return len(lines)


def _name_phases(axes: Axes, phases: Mapping[str, float], start_s: float) -> None:
    for name, at in phases.items():
        axes.annotate(
            name,
            (at - start_s, 1),
            (2, -7),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            fontsize=6,
            color="#888",
        )


def _moves(series: Series) -> bool:
    return any(value == value and value != 0 for value in series.values)


def _legend(template: str, series: Series) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: series.labels.get(match[1], ""), template)


def _at(series: Series, at: float) -> float:
    value = dict(zip(series.times_s, series.values, strict=True)).get(at, 0.0)
    return value if value == value else 0.0


def _amount(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{100 * value:.0f}%"
    if unit == "bytes":
        return f"{value / 2**20:.0f} MiB" if value >= 2**20 else f"{value / 2**10:.0f} KiB"
    if unit == "s" and 0 < value < 1:
        return f"{1000 * value:.3g} ms"
    return f"{value:.3g}" + (" s" if unit == "s" else "")
