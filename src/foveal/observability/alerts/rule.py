"""One alert, and the traffic that shows it fires when it should and only then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["AlertCase", "AlertRule"]

Severity = Literal["critical", "warning", "info"]
"""critical: wake somebody. warning: look at it today. info: money is lost, nobody suffers."""


@dataclass(frozen=True, slots=True)
class AlertCase:
    """Series in promtool's notation ('0+60x40': from 0, 60 more each minute, 40 times), and who shall be alerted."""

    series: Mapping[str, str]
    """name{labels} -> values, one a minute."""
    labels: tuple[Mapping[str, str], ...] = ()
    """The labels of each alert that fires at `at_minute`; none: it must stay silent."""
    at_minute: int = 40


@dataclass(frozen=True, slots=True)
class AlertRule:
    """`summary` and `description` may use {{ $labels.NAME }}. Rendered by `render`, checked by promtool and our lint."""

    name: str
    severity: Severity
    expr: str
    for_minutes: int
    summary: str
    description: str
    """What it means and what to do first."""
    cases: tuple[AlertCase, ...] = field(default=())
