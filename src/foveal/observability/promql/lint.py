"""A query against the catalogue: metrics that exist, labels they have, functions that fit their kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from foveal.observability.metric_spec import MetricSpec
from foveal.observability.promql.parser import parse
from foveal.observability.promql.syntax import Aggregation, Binary, Call, Expression, Selector, walk
from foveal.observability.promql.tokens import PromqlError

__all__ = ["lint"]

TARGET_LABELS = frozenset({"job", "instance"})
"""Added to every series by Prometheus when it scrapes."""

PROCESS_METRICS = {
    "process_cpu_seconds_total": "counter",
    "process_resident_memory_bytes": "gauge",
    "process_open_fds": "gauge",
    "process_max_fds": "gauge",
    "process_start_time_seconds": "gauge",
    "up": "gauge",
}
"""On every page, from prometheus_client and from Prometheus itself."""

_COUNTER_FUNCTIONS = frozenset({"rate", "irate", "increase", "resets"})
_RANGE_FUNCTIONS = _COUNTER_FUNCTIONS | {
    *("delta", "idelta", "deriv", "predict_linear", "changes", "absent_over_time"),
    *(
        f"{name}_over_time"
        for name in ["avg", "min", "max", "sum", "count", "last", "stddev", "stdvar", "present", "quantile"]
    ),
}
_FUNCTIONS = _RANGE_FUNCTIONS | {
    *("histogram_quantile", "clamp", "clamp_max", "clamp_min", "abs", "ceil", "floor", "round", "vector", "scalar"),
    *("time", "absent", "sort", "sort_desc", "label_replace", "label_join"),
}


def lint(query: str, catalogue: Iterable[MetricSpec]) -> list[str]:
    """What is wrong with it, one sentence each; empty if nothing is."""
    kinds, labels = _series(catalogue)
    try:
        tree = parse(query)
    except PromqlError as error:
        return [str(error)]
    return list(dict.fromkeys(_problems(tree, kinds, labels)))


def _series(catalogue: Iterable[MetricSpec]) -> tuple[dict[str, str], dict[str, frozenset[str]]]:
    kinds: dict[str, str] = dict(PROCESS_METRICS)
    labels: dict[str, frozenset[str]] = dict.fromkeys(PROCESS_METRICS, TARGET_LABELS)
    for spec in catalogue:
        for name in spec.series_names:
            own = {*spec.label_names, *TARGET_LABELS}
            if name.endswith("_bucket"):
                own.add("le")
            kinds[name] = "bucket" if name.endswith("_bucket") else "counter" if spec.kind == "histogram" else spec.kind
            labels[name] = frozenset(own)
    return kinds, labels


def _problems(tree: Expression, kinds: dict[str, str], labels: dict[str, frozenset[str]]) -> Iterator[str]:
    for node, above in walk(tree):
        if isinstance(node, Call) and node.function not in _FUNCTIONS:
            yield f"{node.function} is not a function that Prometheus has, or not one we use"
        if isinstance(node, Aggregation | Binary):
            known = _labels_below(node, labels)
            for label in node.labels:
                if label not in known:
                    yield f"{_word(node)} {label}: no metric below has this label"
        if isinstance(node, Call) and node.function == "histogram_quantile":
            yield from _quantile_problems(node, kinds)
        if isinstance(node, Selector):
            if node.metric not in kinds:
                yield f"{node.metric or 'a selector without a name'} is not in the catalogue"
                continue
            for matcher in node.matchers:
                if matcher.label not in labels[node.metric]:
                    yield f"{node.metric} has no label {matcher.label}"
            yield from _kind_problems(node, above[-1] if above else None, kinds[node.metric])


def _kind_problems(node: Selector, parent: Expression | None, kind: str) -> Iterator[str]:
    function = parent.function if isinstance(parent, Call) else ""
    if node.range and function not in _RANGE_FUNCTIONS:
        yield f"{node.metric}[{node.range}] must be inside a function over a range"
    if not node.range and function in _RANGE_FUNCTIONS:
        yield f"{function}({node.metric}) needs a range such as [5m]"
    if function in _COUNTER_FUNCTIONS and kind == "gauge":
        yield f"{function} over the gauge {node.metric} means nothing; use deriv or avg_over_time"
    if function not in _COUNTER_FUNCTIONS and kind in ("counter", "bucket"):
        yield f"the counter {node.metric} only means something inside rate or increase"


def _quantile_problems(node: Call, kinds: dict[str, str]) -> Iterator[str]:
    buckets = [
        (inner, above)
        for inner, above in walk(node)
        if isinstance(inner, Selector) and kinds.get(inner.metric) == "bucket"
    ]
    if not buckets:
        yield "histogram_quantile needs the _bucket series of a histogram"
    for inner, above in buckets:
        for outer in above:
            if isinstance(outer, Aggregation) and not _keeps_le(outer):
                yield f"{inner.metric}: the aggregation inside histogram_quantile must keep le"


def _keeps_le(node: Aggregation) -> bool:
    return "le" in node.labels if node.grouping == "by" else node.grouping == "without" and "le" not in node.labels


def _labels_below(node: Expression, labels: dict[str, frozenset[str]]) -> set[str]:
    return {
        label
        for inner, _ in walk(node)
        if isinstance(inner, Selector)
        for label in labels.get(inner.metric, frozenset())
    }


def _word(node: Aggregation | Binary) -> str:
    return node.grouping if isinstance(node, Aggregation) else "on"
