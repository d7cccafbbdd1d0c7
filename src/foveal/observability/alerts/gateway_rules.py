"""Alerts on what users feel at the gateway."""

from __future__ import annotations

from foveal.observability.alerts.rule import AlertCase, AlertRule
from foveal.observability.alerts.thresholds import AlertThresholds

__all__ = ["gateway_rules"]

_TTFT = "foveal_gateway_time_to_first_token_seconds_bucket"
_REQUESTS = "foveal_gateway_requests_total"
_QUEUE = "foveal_gateway_request_queue_time_seconds"


def gateway_rules(limits: AlertThresholds) -> tuple[AlertRule, ...]:
    return (
        AlertRule(
            "HighLatency",
            "warning",
            f"histogram_quantile(0.95, sum by (le, model_name) (rate({_TTFT}[5m]))) > {limits.p95_ttft_s:g}",
            5,
            "P95 time to first token of {{ $labels.model_name }} is too long",
            f"Five percent of streams wait more than {limits.p95_ttft_s:g} s for their first token. The waterfall panel says "
            "where the time goes; foveal diagnose names the cause.",
            (
                AlertCase(_buckets(slow=0.5), ({"model_name": "m"},)),
                AlertCase(_buckets(slow=0.01)),
            ),
        ),
        AlertRule(
            "HighErrorRate",
            "critical",
            f'sum by (model_name) (rate({_REQUESTS}{{outcome=~"error|timeout"}}[5m])) '
            f"/ sum by (model_name) (rate({_REQUESTS}[5m])) > {limits.error_ratio:g}",
            5,
            "Requests to {{ $labels.model_name }} fail",
            f"More than {100 * limits.error_ratio:g} % of requests end in an error or a time-out. Look at the errors panel by "
            "code and at the backends' results.",
            (
                AlertCase(_outcomes(success=100, error=10, timeout=10), ({"model_name": "m"},)),
                AlertCase(_outcomes(success=100, error=1, timeout=1)),
            ),
        ),
        AlertRule(
            "UrgentWaitsTooLong",
            "warning",
            f'1 - sum(rate({_QUEUE}_bucket{{priority="P0", le="0.1"}}[5m])) '
            f'/ sum(rate({_QUEUE}_count{{priority="P0"}}[5m])) > {limits.late_urgent_ratio:g}',
            5,
            "P0 requests wait longer than 100 ms",
            f"More than {100 * limits.late_urgent_ratio:g} % of P0 requests miss their queue deadline. Either P0 traffic is "
            "above 30 % of capacity, or a backend has no seat kept free for it (urgent_slots).",
            (
                AlertCase(
                    {
                        f'{_QUEUE}_bucket{{model_name="m", priority="P0", le="0.1"}}': "0+90x60",
                        f'{_QUEUE}_count{{model_name="m", priority="P0"}}': "0+100x60",
                    },
                    ({},),
                ),
                AlertCase(
                    {
                        f'{_QUEUE}_bucket{{model_name="m", priority="P0", le="0.1"}}': "0+999x60",
                        f'{_QUEUE}_count{{model_name="m", priority="P0"}}': "0+1000x60",
                    }
                ),
            ),
        ),
        AlertRule(
            "UrgentShed",
            "critical",
            'sum by (reason) (rate(foveal_gateway_shed_total{priority="P0"}[5m])) > 0',
            2,
            "P0 requests are refused ({{ $labels.reason }})",
            "Lower classes are shed first, so nothing is left to give up: add replicas or lower the load.",
            (
                AlertCase(
                    {'foveal_gateway_shed_total{priority="P0", reason="queue_full"}': "0+5x60"},
                    ({"reason": "queue_full"},),
                ),
                AlertCase({'foveal_gateway_shed_total{priority="P2", reason="queue_full"}': "0+5x60"}),
            ),
        ),
        AlertRule(
            "QueueGrowing",
            "warning",
            f"sum(foveal_gateway_queue_length) > {limits.queue_length:g} "
            "and sum(deriv(foveal_gateway_queue_length[10m])) > 0",
            5,
            "The gateway's queue grows",
            "Requests come faster than the backends answer. Add replicas, or shed earlier by a shorter queue.",
            (
                AlertCase({'foveal_gateway_queue_length{priority="P2"}': "0+2x60"}, ({},)),
                AlertCase({'foveal_gateway_queue_length{priority="P2"}': "80-2x40"}),
                AlertCase({'foveal_gateway_queue_length{priority="P2"}': "5x60"}),
            ),
        ),
        AlertRule(
            "BackendDown",
            "critical",
            "foveal_gateway_backend_up == 0",
            1,
            "Backend {{ $labels.backend }} is out of rotation",
            "Ejected, starting or unreachable; others carry its load. See foveal_gateway_backend_ejections_total for why.",
            (
                AlertCase(
                    {
                        'foveal_gateway_backend_up{backend="a"}': "1x30 0x30",
                        'foveal_gateway_backend_up{backend="b"}': "1x60",
                    },
                    ({"backend": "a"},),
                ),
                AlertCase({'foveal_gateway_backend_up{backend="a"}': "1x39 0 1x20"}),
            ),
        ),
        AlertRule(
            "NoBackend",
            "critical",
            "sum(foveal_gateway_backend_up) == 0",
            0,
            "No backend is in rotation",
            "Every request fails or is answered by a fallback. Look at the backends themselves.",
            (
                AlertCase({'foveal_gateway_backend_up{backend="a"}': "1x30 0x30"}, ({},)),
                AlertCase(
                    {
                        'foveal_gateway_backend_up{backend="a"}': "0x60",
                        'foveal_gateway_backend_up{backend="b"}': "1x60",
                    }
                ),
            ),
        ),
        AlertRule(
            "LowUtilisation",
            "info",
            "sum(avg_over_time(foveal_gateway_backend_in_flight[10m])) / sum(foveal_gateway_backend_max_in_flight) "
            f"< {limits.utilisation_ratio:g} and sum(rate({_REQUESTS}[10m])) > 0 and count(foveal_gateway_backend_up == 1) > 1",
            30,
            "Replicas idle",
            f"Less than {100 * limits.utilisation_ratio:g} % of the seats are used although there is traffic and more than one "
            "replica. Stop one, or raise concurrency; foveal diagnose tells which.",
            (
                AlertCase(_seats(in_flight="1x60", backends=2), ({},), 55),
                AlertCase(_seats(in_flight="7x60", backends=2), (), 55),
                AlertCase(_seats(in_flight="1x60", backends=1), (), 55),
            ),
        ),
        AlertRule(
            "TruncationRate",
            "warning",
            'sum by (model_name) (rate(foveal_gateway_choices_finished_total{finished_reason="length"}[15m])) '
            "/ sum by (model_name) (rate(foveal_gateway_choices_finished_total[15m])) "
            f"> {limits.truncation_ratio:g}",
            15,
            "Answers of {{ $labels.model_name }} are cut off",
            f"More than {100 * limits.truncation_ratio:g} % of answers end at max_tokens. Clients ask for too few tokens, or "
            "the model does not stop.",
            (
                AlertCase(_finished("foveal_gateway_choices_finished_total", length=30), ({"model_name": "m"},)),
                AlertCase(_finished("foveal_gateway_choices_finished_total", length=3)),
            ),
        ),
    )


def _buckets(slow: float) -> dict[str, str]:
    """100 streams a minute, of which the fraction `slow` takes between 1.5 and 2 s."""
    fast = round(100 * (1 - slow))
    edges = {"0.5": fast, "1.0": fast, "1.5": fast, "2.0": 100, "+Inf": 100}
    return {f'{_TTFT}{{model_name="m", priority="P1", le="{le}"}}': f"0+{count}x60" for le, count in edges.items()}


def _outcomes(**per_minute: int) -> dict[str, str]:
    return {
        f'{_REQUESTS}{{model_name="m", tenant="t", priority="P1", outcome="{outcome}"}}': f"0+{count}x60"
        for outcome, count in per_minute.items()
    }


def _seats(in_flight: str, backends: int) -> dict[str, str]:
    series = _outcomes(success=10)
    for name in "abc"[:backends]:
        series[f'foveal_gateway_backend_in_flight{{backend="{name}"}}'] = in_flight
        series[f'foveal_gateway_backend_max_in_flight{{backend="{name}"}}'] = "8x60"
        series[f'foveal_gateway_backend_up{{backend="{name}"}}'] = "1x60"
    return series


def _finished(metric: str, length: int) -> dict[str, str]:
    reasons = {"stop": 100 - length, "length": length}
    return {
        f'{metric}{{model_name="m", finished_reason="{reason}"}}': f"0+{count}x60" for reason, count in reasons.items()
    }
