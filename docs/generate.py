"""Write the reference pages that follow from code. `tests/docs/` fails when a page drifts.

make docs
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from foveal.cli.app import COMMANDS

REFERENCE = Path(__file__).parent / "reference"
MONITORING = Path(__file__).parents[1] / "monitoring"


def cli_page() -> str:
    """Every command with its arguments, options and example."""
    lines = [
        "# Command line",
        "",
        "Generated from the commands by `make docs`.",
    ]
    for name, (module, summary) in COMMANDS.items():
        command = typer.main.get_command(importlib.import_module(module).command)
        for path, leaf in _leaves(f"foveal {name}", command):
            lines += ["", f"## `{path}`", "", *_help_of(leaf, summary)]
    return "\n".join(lines) + "\n"


def _leaves(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """A group's commands, by their full names."""
    children = getattr(command, "commands", None)
    if not children:
        yield path, command
        return
    for name, child in sorted(children.items()):
        yield from _leaves(f"{path} {name}", child)


def _help_of(command: Any, summary: str) -> list[str]:
    text = (command.help or summary).strip()
    lines = [part for block in text.split("\n\n") for part in (_example(block), "")]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    if arguments or options:
        lines += ["| name | default | |", "|---|---|---|"]
    for parameter in arguments:
        name = parameter.metavar or parameter.name.upper()
        lines.append(
            f"| `{name}` | {'required' if parameter.required else ''} | {_one_line(getattr(parameter, 'help', ''))} |"
        )
    for parameter in options:
        names = "/".join([*parameter.opts, *parameter.secondary_opts])
        lines.append(f"| `{names}` | {_default(parameter)} | {_one_line(parameter.help)} |")
    return lines


def _example(block: str) -> str:
    block = " ".join(line.strip() for line in block.splitlines())
    return f"```\n{block.removeprefix('Example: ')}\n```" if block.startswith("Example: ") else block


def _default(parameter: Any) -> str:
    value = parameter.default
    if parameter.required:
        return "required"
    if value is None or value == () or callable(value):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def pages() -> dict[Path, str]:
    """Page -> what it must say."""
    from foveal.observability.alerts.page import render_alerts_page
    from foveal.observability.metrics_page import render_metrics_page

    return {
        REFERENCE / "cli.md": cli_page(),
        REFERENCE / "metrics.md": render_metrics_page(),
        REFERENCE / "alerts.md": render_alerts_page(),
        **monitoring_files(),
    }


def monitoring_files() -> dict[Path, str]:
    """Dashboards, alert rules and their tests, at their default thresholds."""
    from foveal.observability.alerts.render import RULES_FILE, TESTS_FILE, render_rules, render_tests
    from foveal.observability.alerts.thresholds import AlertThresholds
    from foveal.observability.dashboards.all import dashboards
    from foveal.observability.dashboards.grafana import render_dashboard

    limits = AlertThresholds()
    alerts = MONITORING / "alerts"
    files = {MONITORING / "dashboards" / name: render_dashboard(one) for name, one in dashboards().items()}
    return {**files, alerts / RULES_FILE: render_rules(limits), alerts / TESTS_FILE: render_tests(limits)}


def main() -> None:
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
