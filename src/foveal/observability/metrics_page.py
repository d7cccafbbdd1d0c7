"""docs/reference/metrics.md, from the catalogue. `python -m foveal.observability.metrics_page > docs/reference/metrics.md`"""

from __future__ import annotations

import sys

from foveal.observability.catalogue import CATALOGUE, SLA_EDGES_S, MetricSpec

__all__ = ["render_metrics_page"]

_HEAD = """# Metrics

<!-- Generated from src/foveal/observability/catalogue.py by `python -m foveal.observability.metrics_page`. -->

`GET /metrics` answers in the Prometheus text format. Every metric has the label `model_name`; `process_*` (CPU, memory,
file descriptors of the server process) come on top. Names keep vLLM's words behind our prefix: replace `vllm:` by
`foveal_`. Exceptions are in the table. Latency histograms have a bucket edge on each deadline of the priority classes
({edges} s).

Counters marked *engine* are the engine process's own totals: they start again at 0 when it is restarted, which
`rate()` handles.

| name | type | labels | unit | meaning | vLLM's name |
|---|---|---|---|---|---|
"""

_BUCKETS = """
## Buckets

| histogram | upper edges |
|---|---|
"""


def render_metrics_page() -> str:
    """Markdown, ending in a newline."""
    edges = ", ".join(f"{edge:g}" for edge in SLA_EDGES_S)
    rows = "".join(_row(spec) for spec in CATALOGUE)
    histograms = [spec for spec in CATALOGUE if spec.kind == "histogram"]
    buckets = "".join(f"| `{s.name}` | {', '.join(f'{edge:g}' for edge in s.buckets)} |\n" for s in histograms)
    return _HEAD.format(edges=edges) + rows + _BUCKETS + buckets


def _row(spec: MetricSpec) -> str:
    kind = f"{spec.kind}, *engine*" if spec.source == "snapshot" and spec.kind == "counter" else spec.kind
    labels = ", ".join(f"`{label}`" for label in spec.labels)
    vllm = f"`{spec.vllm}`" if spec.vllm else ""
    return f"| `{spec.name}` | {kind} | {labels} | {spec.unit} | {spec.help} | {vllm} |\n"


if __name__ == "__main__":
    sys.stdout.write(render_metrics_page())
