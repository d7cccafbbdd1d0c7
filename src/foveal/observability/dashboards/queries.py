"""The few shapes of query that all panels are made of."""

from __future__ import annotations

from foveal.observability.dashboards.panel import Query

__all__ = ["quantiles", "rate_by", "share"]

RATE = "[$__rate_interval]"
MODEL = 'model_name=~"$model"'


def quantiles(metric: str, matchers: str = "", by: str = "") -> tuple[Query, ...]:
    """P50, P95 and P99 of a histogram: never an average alone."""
    selector = f"{metric}_bucket{{{matchers}}}" if matchers else f"{metric}_bucket"
    grouping = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    return tuple(
        Query(f"histogram_quantile({q}, sum by ({grouping}) (rate({selector}{RATE})))", f"P{round(100 * q)}{legend}")
        for q in (0.5, 0.95, 0.99)
    )


def rate_by(metric: str, by: str = "", matchers: str = "") -> Query:
    """A counter per second, summed over everything but `by`."""
    selector = f"{metric}{{{matchers}}}" if matchers else metric
    grouping = f" by ({by})" if by else ""
    legend = " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(",")) if by else "all"
    return Query(f"sum{grouping} (rate({selector}{RATE}))", legend)


def share(part: str, whole: str, legend: str, matchers: str = "") -> Query:
    """One counter over another, both per second."""
    braces = f"{{{matchers}}}" if matchers else ""
    return Query(f"sum(rate({part}{braces}{RATE})) / sum(rate({whole}{braces}{RATE}))", legend)
