"""A dashboard with one panel per metric of the catalogue: nothing that is measured can be forgotten."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from foveal.observability.catalogue import CATALOGUE, MetricSpec
from foveal.observability.dashboards.panel import Dashboard, Panel, Query, Row, Unit
from foveal.observability.dashboards.queries import quantiles, rate_by

__all__ = ["every_metric_dashboard"]

_UNITS: dict[str, Unit] = {"seconds": "s", "bytes": "bytes", "ratio": "percentunit"}


def every_metric_dashboard(catalogue: Iterable[MetricSpec] = CATALOGUE) -> Dashboard:
    rows = [
        Row(f"{component.capitalize()}: {kind}s", tuple(_panel(spec) for spec in specs))
        for (component, kind), specs in groupby(
            sorted(catalogue, key=lambda spec: (spec.component, spec.kind)),
            key=lambda spec: (spec.component, spec.kind),
        )
    ]
    return Dashboard(
        "foveal-every-metric",
        "Foveal: every metric",
        "One panel per metric.",
        tuple(rows),
        "foveal_num_requests_running",
    )


def _panel(spec: MetricSpec) -> Panel:
    unit = _UNITS.get(spec.unit, "short")
    title = spec.name.removeprefix("foveal_")
    labels = ", ".join(spec.label_names)
    if spec.kind == "histogram":
        return Panel(title, unit, quantiles(spec.name), spec.help)
    if spec.kind == "counter":
        return Panel(title, unit if spec.unit in _UNITS else "ops", (rate_by(spec.name, labels),), spec.help)
    legend = " ".join(f"{{{{{label}}}}}" for label in spec.label_names) or "{{instance}}"
    return Panel(title, unit, (Query(spec.name, legend),), spec.help)
