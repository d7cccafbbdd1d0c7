"""Dashboards as the JSON that Grafana (11 and later) imports."""

from __future__ import annotations

import json

from foveal.observability.dashboards.panel import Dashboard, Panel, Row

__all__ = ["render_dashboard"]

_COLUMNS = 24
_HEIGHT = 8
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def render_dashboard(dashboard: Dashboard) -> str:
    """Ends in a newline; the same dashboard always gives the same text."""
    document = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["foveal"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_source_variable(), _model_variable(dashboard.model_metric)]},
        "panels": _layout(dashboard.rows),
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _layout(rows: tuple[Row, ...]) -> list[dict[str, object]]:
    """Left to right, then down. Panel ids count from 1."""
    placed: list[dict[str, object]] = []
    y = 0
    for row in rows:
        placed.append(
            {
                "id": len(placed) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1},
                "panels": [],
            }
        )
        y, x = y + 1, 0
        for panel in row.panels:
            if x + panel.width > _COLUMNS:
                y, x = y + _HEIGHT, 0
            placed.append(_panel(panel, len(placed) + 1, x, y))
            x += panel.width
        y += _HEIGHT
    return placed


def _panel(panel: Panel, number: int, x: int, y: int) -> dict[str, object]:
    custom: dict[str, object] = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 25 if panel.stacked else 5}
    if panel.stacked:
        custom["stacking"] = {"mode": "normal", "group": "A"}
    defaults: dict[str, object] = {
        "unit": "suffix: tok/s" if panel.unit == "tokens/s" else panel.unit,
        "min": 0,
        "custom": custom,
    }
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": _HEIGHT},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": _SOURCE, "expr": query.expr, "legendFormat": query.legend}
            for index, query in enumerate(panel.queries)
        ],
    }


def _source_variable() -> dict[str, object]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}


def _model_variable(metric: str) -> dict[str, object]:
    return {
        "name": "model",
        "type": "query",
        "label": "Model",
        "datasource": _SOURCE,
        "query": f"label_values({metric}, model_name)",
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
