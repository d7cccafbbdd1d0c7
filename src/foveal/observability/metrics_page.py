"""docs/reference/metrics.md, from the catalogue. `python -m foveal.observability.metrics_page > docs/reference/metrics.md`"""

from __future__ import annotations

import sys

from foveal.observability.catalogue import CATALOGUE, ENGINE_CATALOGUE, GATEWAY_CATALOGUE, SLA_EDGES_S, MetricSpec

__all__ = ["render_metrics_page"]

_HEAD = """# Metrics

<!-- Generated from src/foveal/observability/*_catalogue.py by `python -m foveal.observability.metrics_page`. -->

`GET /metrics` answers in the Prometheus text format, at the engine server and at the gateway; `process_*` (CPU, memory, file
descriptors of that process) come on top. Latency histograms have a bucket edge on each deadline of the priority classes
({edges} s). [Dashboards, alerts and `foveal diagnose`](../guides/observability.md) are made from these.

## Engine server

Every metric has the label `model_name`. Names keep vLLM's words behind our prefix: replace `vllm:` by `foveal_`. Exceptions
are in the table. Counters marked *engine* are the engine process's own totals: they start again at 0 when it is restarted,
which `rate()` handles.

| name | type | labels | unit | meaning | vLLM's name |
|---|---|---|---|---|---|
"""

_GATEWAY = """
## Gateway

Labels hold names of the configuration: models, backends, tenants (the first 50 seen, then `other`). `priority` is P0, P1 or P2.

| name | type | labels | unit | meaning |
|---|---|---|---|---|
"""

_BUCKETS = """
## Buckets

| histogram | upper edges |
|---|---|
"""


def render_metrics_page() -> str:
    """Markdown, ending in a newline."""
    edges = ", ".join(f"{edge:g}" for edge in SLA_EDGES_S)
    engine = "".join(_engine_row(spec) for spec in ENGINE_CATALOGUE)
    gateway = "".join(_row(spec) for spec in GATEWAY_CATALOGUE)
    histograms = [spec for spec in CATALOGUE if spec.kind == "histogram"]
    buckets = "".join(f"| `{s.name}` | {', '.join(f'{edge:g}' for edge in s.buckets)} |\n" for s in histograms)
    return _HEAD.format(edges=edges) + engine + _GATEWAY + gateway + _BUCKETS + buckets


def _engine_row(spec: MetricSpec) -> str:
    kind = f"{spec.kind}, *engine*" if spec.source == "snapshot" and spec.kind == "counter" else spec.kind
    vllm = f"`{spec.vllm}`" if spec.vllm else ""
    return f"| `{spec.name}` | {kind} | {_labels(spec)} | {spec.unit} | {spec.help} | {vllm} |\n"


def _row(spec: MetricSpec) -> str:
    return f"| `{spec.name}` | {spec.kind} | {_labels(spec)} | {spec.unit} | {spec.help} |\n"


def _labels(spec: MetricSpec) -> str:
    return ", ".join(f"`{label}`" for label in spec.labels)


if __name__ == "__main__":
    sys.stdout.write(render_metrics_page())
