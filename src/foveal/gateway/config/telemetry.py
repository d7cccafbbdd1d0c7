"""Logs, traces and metric labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foveal.gateway.config.fields import Count, Fraction, Seconds

__all__ = ["LoggingConfig", "MetricsConfig", "TracingConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingConfig:
    """Request bodies and keys are never logged."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"
    access: bool = True
    """One line per request."""
    slow_request_s: Seconds = 10.0
    """Requests longer than this are logged with their waterfall."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingConfig:
    """OpenTelemetry. Without an endpoint tracing is off and costs nothing."""

    endpoint: str | None = None
    """OTLP over HTTP, e.g. http://localhost:4318/v1/traces."""
    sample_ratio: Fraction = 0.01
    """Of requests that bring no sampling decision in their traceparent."""
    service_name: str = "foveal-gateway"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig:
    max_tenant_labels: Count = 50
    """Tenants beyond it share the label `other`."""
