"""Every metric of Foveal: objects, documentation, dashboards and alerts are made from this list, queries checked by it."""

from __future__ import annotations

from foveal.observability.engine_catalogue import ENGINE_CATALOGUE
from foveal.observability.gateway_catalogue import GATEWAY_CATALOGUE
from foveal.observability.metric_spec import SLA_EDGES_S, MetricSpec

__all__ = ["CATALOGUE", "ENGINE_CATALOGUE", "GATEWAY_CATALOGUE", "SLA_EDGES_S", "MetricSpec", "metric_spec"]

CATALOGUE: tuple[MetricSpec, ...] = (*ENGINE_CATALOGUE, *GATEWAY_CATALOGUE)

_BY_NAME = {spec.name: spec for spec in CATALOGUE}


def metric_spec(name: str) -> MetricSpec:
    """Raises KeyError for a name that is not in the catalogue."""
    return _BY_NAME[name]
