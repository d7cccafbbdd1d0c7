"""One reading of a /metrics page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from foveal.core.errors import FovealError
from foveal.observability.diagnosis.dialect import as_ours

__all__ = ["MetricsPageError", "Sample", "Scrape", "parse_page"]


class MetricsPageError(FovealError):
    """A page that is not in the Prometheus text format, or cannot be had."""


@dataclass(frozen=True, slots=True)
class Sample:
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Scrape:
    at_s: float
    """Unix seconds."""
    samples: Mapping[str, tuple[Sample, ...]]
    """By name as exposed (with _bucket, _total, ...), in our engine's words."""


def parse_page(text: str, at_s: float) -> Scrape:
    """Raises MetricsPageError."""
    samples: dict[str, list[Sample]] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(as_ours(sample.name), []).append(Sample(sample.labels, sample.value))
    except ValueError as error:
        raise MetricsPageError(
            f"the page is not in the Prometheus text format ({error}); give the address of a server, or of its /metrics"
        ) from error
    return Scrape(at_s, {name: tuple(found) for name, found in samples.items()})
