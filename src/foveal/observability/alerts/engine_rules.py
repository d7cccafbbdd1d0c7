"""Alerts on what only an engine knows."""

from __future__ import annotations

from foveal.observability.alerts.rule import AlertCase, AlertRule
from foveal.observability.alerts.thresholds import AlertThresholds

__all__ = ["engine_rules"]


def engine_rules(limits: AlertThresholds) -> tuple[AlertRule, ...]:
    return (
        AlertRule(
            "KVPressure",
            "warning",
            f"avg_over_time(foveal_kv_cache_usage_perc[5m]) > {limits.kv_usage_ratio:g} "
            "or rate(foveal_num_preemptions_total[5m]) > 0",
            5,
            "The KV cache of {{ $labels.model_name }} is nearly full",
            f"More than {100 * limits.kv_usage_ratio:g} % of its blocks are in use, or sequences lose them to others and are "
            "computed again. Lower max_num_seqs or the image resolution, use an 8-bit KV cache, or add a replica.",
            (
                AlertCase({'foveal_kv_cache_usage_perc{model_name="m"}': "0.95x60"}, ({"model_name": "m"},)),
                AlertCase(
                    {
                        'foveal_kv_cache_usage_perc{model_name="m"}': "0.5x60",
                        'foveal_num_preemptions_total{model_name="m"}': "0+3x60",
                    },
                    ({"model_name": "m"},),
                ),
                AlertCase(
                    {
                        'foveal_kv_cache_usage_perc{model_name="m"}': "0.5x60",
                        'foveal_num_preemptions_total{model_name="m"}': "0x60",
                    }
                ),
            ),
        ),
        AlertRule(
            "MemoryHigh",
            "critical",
            f"foveal_memory_used_bytes / (foveal_memory_limit_bytes > 0) > {limits.memory_ratio:g}",
            5,
            "Memory under {{ $labels.model_name }} is nearly used up",
            f"More than {100 * limits.memory_ratio:g} % of the machine, cgroup or --memory-limit-mib. The memory guard gives "
            "caches and seats away before anything fails; see foveal_memory_guard_actions_total.",
            (
                AlertCase(
                    {
                        'foveal_memory_used_bytes{model_name="m"}': "900x60",
                        'foveal_memory_limit_bytes{model_name="m"}': "1000x60",
                    },
                    ({"model_name": "m"},),
                ),
                AlertCase(
                    {
                        'foveal_memory_used_bytes{model_name="m"}': "900x60",
                        'foveal_memory_limit_bytes{model_name="m"}': "0x60",
                    }
                ),
            ),
        ),
        AlertRule(
            "EngineHighErrorRate",
            "critical",
            "sum by (model_name) (rate(foveal_request_errors_total[5m])) "
            "/ (sum by (model_name) (rate(foveal_request_errors_total[5m])) "
            "+ sum by (model_name) (rate(foveal_requests_finished_total[5m]))) "
            f"> {limits.error_ratio:g}",
            5,
            "The engine of {{ $labels.model_name }} refuses or fails requests",
            f"More than {100 * limits.error_ratio:g} % end in an error. Its label `code` says which.",
            (
                AlertCase(
                    {
                        'foveal_request_errors_total{model_name="m", code="timeout"}': "0+10x60",
                        'foveal_requests_finished_total{model_name="m", finished_reason="stop"}': "0+90x60",
                    },
                    ({"model_name": "m"},),
                ),
                AlertCase(
                    {
                        'foveal_request_errors_total{model_name="m", code="timeout"}': "0+1x60",
                        'foveal_requests_finished_total{model_name="m", finished_reason="stop"}': "0+99x60",
                    }
                ),
            ),
        ),
    )
