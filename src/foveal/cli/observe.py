"""foveal observe: write dashboards and alert rules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from foveal.observability.alerts.promise_rules import ModelPromise
from foveal.observability.alerts.render import RULES_FILE, render_rules
from foveal.observability.alerts.thresholds import AlertThresholds
from foveal.observability.dashboards.all import dashboards as all_dashboards
from foveal.observability.dashboards.grafana import render_dashboard

__all__ = ["command"]

command = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Write Grafana dashboards and Prometheus alert rules."
)

_DEFAULT = AlertThresholds()

Directory = Annotated[Path, typer.Argument(help="Directory to write into; made if it is not there.")]


@command.callback()
def _group() -> None:
    """Write Grafana dashboards and Prometheus alert rules."""


@command.command("dashboards")
def dashboards(directory: Directory) -> None:
    """Write the dashboards as JSON files that Grafana imports or provisions.

    Example: foveal observe dashboards monitoring/dashboards
    """
    directory.mkdir(parents=True, exist_ok=True)
    for name, dashboard in all_dashboards().items():
        _write(directory / name, render_dashboard(dashboard))


@command.command("alerts")
def alerts(
    directory: Directory,
    p95_ttft_s: Annotated[float, typer.Option(help="Most seconds to the first token, P95.")] = _DEFAULT.p95_ttft_s,
    error_ratio: Annotated[float, typer.Option(help="Most errors among requests, 0 to 1.")] = _DEFAULT.error_ratio,
    utilisation_ratio: Annotated[
        float, typer.Option(help="Least use of the replicas' seats, 0 to 1.")
    ] = _DEFAULT.utilisation_ratio,
    queue_length: Annotated[
        float, typer.Option(help="A longer queue that still grows is an alert.")
    ] = _DEFAULT.queue_length,
    kv_usage_ratio: Annotated[float, typer.Option(help="Most KV cache in use, 0 to 1.")] = _DEFAULT.kv_usage_ratio,
    truncation_ratio: Annotated[
        float, typer.Option(help="Most answers cut off by max_tokens, 0 to 1.")
    ] = _DEFAULT.truncation_ratio,
    memory_ratio: Annotated[float, typer.Option(help="Most memory in use, 0 to 1.")] = _DEFAULT.memory_ratio,
    late_urgent_ratio: Annotated[
        float, typer.Option(help="Most P0 requests that wait longer than 100 ms, 0 to 1.")
    ] = _DEFAULT.late_urgent_ratio,
    config: Annotated[
        Path | None, typer.Option(help="A gateway's configuration: rules for the `sla` of each model come on top.")
    ] = None,
) -> None:
    """Write the alert rules for Prometheus (rule_files in prometheus.yml).

    Example: foveal observe alerts monitoring/alerts --p95-ttft-s 2
    """
    limits = AlertThresholds(
        p95_ttft_s=p95_ttft_s,
        error_ratio=error_ratio,
        utilisation_ratio=utilisation_ratio,
        queue_length=queue_length,
        kv_usage_ratio=kv_usage_ratio,
        truncation_ratio=truncation_ratio,
        memory_ratio=memory_ratio,
        late_urgent_ratio=late_urgent_ratio,
    )
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / RULES_FILE, render_rules(limits, {} if config is None else _promises(config)))


def _promises(config: Path) -> dict[str, ModelPromise]:
    from foveal.gateway.config.load import load_config

    return {
        name: ModelPromise(model.sla.ttft_p95_s, model.sla.e2e_p95_s, model.sla.availability)
        for name, model in load_config(config).models.items()
    }


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    Console().print(f"wrote {path}", highlight=False)
