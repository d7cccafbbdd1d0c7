"""All rules over one window."""

from __future__ import annotations

from collections.abc import Callable

from foveal.observability.diagnosis.finding import Finding
from foveal.observability.diagnosis.rules.caches import cold_caches
from foveal.observability.diagnosis.rules.encoder import encoder_bound
from foveal.observability.diagnosis.rules.failures import backends_down, errors
from foveal.observability.diagnosis.rules.memory import kv_pressure, memory_pressure
from foveal.observability.diagnosis.rules.queueing import queueing
from foveal.observability.diagnosis.rules.tail_latency import tail_latency
from foveal.observability.diagnosis.rules.truncation import truncated_answers
from foveal.observability.diagnosis.rules.utilisation import low_utilisation
from foveal.observability.diagnosis.window import Window

__all__ = ["RULES", "diagnose", "has_traffic"]

Rule = Callable[[Window], Finding | None]

RULES: tuple[Rule, ...] = (
    backends_down,
    errors,
    memory_pressure,
    kv_pressure,
    tail_latency,
    queueing,
    encoder_bound,
    truncated_answers,
    cold_caches,
    low_utilisation,
)
"""The order in which to repair things."""


def diagnose(window: Window) -> list[Finding]:
    """Problems first, then notices, each in the order of RULES. A rule without its metrics says nothing."""
    found = [finding for rule in RULES if (finding := rule(window)) is not None]
    return sorted(found, key=lambda finding: finding.severity != "problem")


def has_traffic(window: Window) -> bool:
    """Whether a request ended in the window: without one there is little to say."""
    counters = ("foveal_gateway_requests_total", "foveal_requests_finished_total", "foveal_request_errors_total")
    return any(window.increase(counter) > 0 for counter in counters)
