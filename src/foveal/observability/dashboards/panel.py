"""Dashboards as data: what is asked, not how Grafana stores it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Dashboard", "Panel", "Query", "Row", "Unit"]

Unit = Literal["s", "reqps", "percentunit", "short", "bytes", "tokens/s", "ops", "ms"]
"""Grafana's names of units; tokens/s is written as a suffix."""


@dataclass(frozen=True, slots=True)
class Query:
    expr: str
    """PromQL; $model and $__rate_interval are Grafana's."""
    legend: str
    """{{label}} is replaced by its value."""


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    unit: Unit
    queries: tuple[Query, ...]
    description: str = ""
    stacked: bool = False
    maximum: float | None = None
    width: int = 8
    """Of 24 columns."""


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    model_metric: str
    """The metric whose model_name values fill the variable $model."""

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for row in self.rows for panel in row.panels)
