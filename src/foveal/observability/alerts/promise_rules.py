"""Alerts on what was promised per model: latency at P95, and the share of requests that succeed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from foveal.observability.alerts.rule import AlertRule

__all__ = ["ModelPromise", "promise_rules"]

G = "foveal_gateway_"


@dataclass(frozen=True, slots=True)
class ModelPromise:
    """What `sla` of a model in the gateway's configuration says."""

    ttft_p95_s: float
    e2e_p95_s: float
    availability: float
    """Share of requests that succeed, of all that are not the client's fault: 0 to 1."""


def promise_rules(promises: Mapping[str, ModelPromise]) -> tuple[AlertRule, ...]:
    """Model name -> what was promised; three rules each."""
    return tuple(
        rule
        for model, promise in promises.items()
        for rule in (
            _latency("PromisedFirstToken", model, f"{G}time_to_first_token_seconds", promise.ttft_p95_s),
            _latency("PromisedEndToEnd", model, f"{G}e2e_request_latency_seconds", promise.e2e_p95_s),
            _availability(model, promise.availability),
        )
    )


def _latency(name: str, model: str, histogram: str, limit_s: float) -> AlertRule:
    return AlertRule(
        name,
        "critical",
        f"histogram_quantile(0.95, sum by (le, model_name) "
        f"(rate({histogram}_bucket{{model_name={_quoted(model)}}}[5m]))) > {limit_s:g}",
        5,
        "{{ $labels.model_name }} is slower than promised",
        f"P95 has been above the promised {limit_s:g} s for five minutes.",
    )


def _availability(model: str, availability: float) -> AlertRule:
    requests = f"{G}requests_total{{model_name={_quoted(model)}"
    return AlertRule(
        "PromisedAvailability",
        "critical",
        f'sum by (model_name) (rate({requests}, outcome=~"error|timeout|shed"}}[1h])) '
        f'/ sum by (model_name) (rate({requests}, outcome!~"client_error|limited|aborted"}}[1h])) '
        f"> {1 - availability:.6g}",
        5,
        "{{ $labels.model_name }} fails more often than promised",
        f"Over the last hour more than {100 * (1 - availability):.4g} % of its requests ended in an error, a time-out or a "
        "refusal.",
    )


def _quoted(model: str) -> str:
    escaped = model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
