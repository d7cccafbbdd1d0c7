"""File name -> dashboard."""

from __future__ import annotations

from foveal.observability.dashboards.engine_dashboard import ENGINE_DASHBOARD
from foveal.observability.dashboards.every_metric import every_metric_dashboard
from foveal.observability.dashboards.gateway_dashboard import GATEWAY_DASHBOARD
from foveal.observability.dashboards.panel import Dashboard

__all__ = ["dashboards"]


def dashboards() -> dict[str, Dashboard]:
    every = (GATEWAY_DASHBOARD, ENGINE_DASHBOARD, every_metric_dashboard())
    return {f"{dashboard.uid}.json": dashboard for dashboard in every}
