"""foveal diagnose URL: what is wrong, why, and what to do."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from foveal.cli.wide_console import wide_console
from foveal.core.errors import ConfigurationError
from foveal.observability.diagnosis.diagnose import diagnose as diagnose_window
from foveal.observability.diagnosis.diagnose import has_traffic
from foveal.observability.diagnosis.finding import Finding
from foveal.observability.diagnosis.page_source import PageSource
from foveal.observability.diagnosis.scrape import Scrape, parse_page
from foveal.observability.diagnosis.window import Window

__all__ = ["command"]

command = typer.Typer(add_completion=False)


@command.command()
def diagnose(
    urls: Annotated[
        list[str], typer.Argument(metavar="URL...", help="Addresses of gateways and engines (ours, or vLLM's).")
    ],
    window_s: Annotated[float, typer.Option(help="Seconds to watch.")] = 30.0,
    interval_s: Annotated[float, typer.Option(help="Seconds between two readings.")] = 1.0,
    before: Annotated[
        Path | None,
        typer.Option(help="Compare with this saved page instead of watching; its age counts as the window."),
    ] = None,
    api_key: Annotated[str | None, typer.Option(envvar="FOVEAL_API_KEY", help="Sent as a bearer token.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Watch the metrics of a running server; name causes, evidence and remedies.

    Example: foveal diagnose http://localhost:8080 --window-s 60
    """
    if not window_s > 0 or not interval_s > 0:
        raise ConfigurationError(f"--window-s {window_s:g} and --interval-s {interval_s:g} must be above 0")
    sources = [PageSource(url, api_key=api_key) for url in urls]
    if before is not None:
        first = parse_page(before.read_text(), before.stat().st_mtime)
        windows = [Window([first, source.read()]) for source in sources]
    else:
        windows = _watch(sources, window_s, interval_s)
    found = [diagnose_window(window) for window in windows]
    if json_output:
        pages = [
            {"url": source.url, "seconds": round(window.seconds, 3), "findings": [asdict(one) for one in findings]}
            for source, window, findings in zip(sources, windows, found, strict=True)
        ]
        print(json.dumps(pages, indent=2))
    else:
        console = wide_console()
        for source, window, findings in zip(sources, windows, found, strict=True):
            _show(console, source.url, window, findings)
    if any(finding.severity == "problem" for findings in found for finding in findings):
        raise typer.Exit(1)


def _watch(sources: list[PageSource], window_s: float, interval_s: float) -> list[Window]:
    """Read all pages each interval. Ctrl-C ends the window early."""
    scrapes: list[list[Scrape]] = [[source.read()] for source in sources]
    started_s = time.monotonic()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"watching for {window_s:g} s", total=window_s)
        with contextlib.suppress(KeyboardInterrupt):
            while (left_s := started_s + window_s - time.monotonic()) > interval_s:
                time.sleep(interval_s)
                _read_all(sources, scrapes)
                progress.update(task, completed=time.monotonic() - started_s)
            time.sleep(max(0.0, left_s))
    _read_all(sources, scrapes)
    return [Window(own) for own in scrapes]


def _read_all(sources: list[PageSource], scrapes: list[list[Scrape]]) -> None:
    for source, own in zip(sources, scrapes, strict=True):
        own.append(source.read())


def _show(console: Console, url: str, window: Window, findings: list[Finding]) -> None:
    console.print(f"[bold]{url}[/]  {window.seconds:.0f} s, {len(window.scrapes)} readings", highlight=False)
    if not has_traffic(window):
        console.print("  No request ended in this time: there is nothing to judge speed by.\n", highlight=False)
    for finding in findings:
        console.print(_panel(finding))
    if has_traffic(window) and not findings:
        console.print("  [green]Nothing found.[/]\n")


def _panel(finding: Finding) -> Panel:
    color = "red" if finding.severity == "problem" else "yellow"
    body = Group(
        Text(finding.cause),
        Padding(Group(*(Text(f"· {line}", "dim") for line in finding.evidence)), (1, 0)),
        *(Text(f"{number}. {line}") for number, line in enumerate(finding.remedy, 1)),
    )
    return Panel(
        body, title=f"[{color}]{finding.title}[/]", title_align="left", border_style=color, subtitle=finding.code
    )
