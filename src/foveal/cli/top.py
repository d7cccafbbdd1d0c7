"""foveal top URL: what a gateway or an engine does now."""

from __future__ import annotations

import time
from collections import deque
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from foveal.cli.top_engine import engine_view
from foveal.cli.top_gateway import gateway_view
from foveal.core.errors import ConfigurationError
from foveal.observability.diagnosis.page_source import PageSource
from foveal.observability.diagnosis.scrape import MetricsPageError, Scrape
from foveal.observability.diagnosis.window import Window

__all__ = ["command", "view"]

command = typer.Typer(add_completion=False)


@command.command()
def top(
    url: Annotated[str, typer.Argument(help="Address of a gateway or an engine (ours, or vLLM's).")],
    interval_s: Annotated[float, typer.Option(help="Seconds between two readings.")] = 1.0,
    window_s: Annotated[float, typer.Option(help="Seconds that rates and quantiles cover.")] = 30.0,
    once: Annotated[bool, typer.Option("--once", help="Watch one window, print it and exit.")] = False,
    api_key: Annotated[str | None, typer.Option(envvar="FOVEAL_API_KEY", help="Sent as a bearer token.")] = None,
) -> None:
    """Live view of a gateway or an engine: traffic, latencies, backends, classes, diagnosis. Ctrl-C ends it.

    Example: foveal top http://localhost:8080
    """
    if not interval_s > 0 or window_s < interval_s:
        raise ConfigurationError(
            f"--window-s {window_s:g} must be at least --interval-s {interval_s:g}, and both above 0"
        )
    source = PageSource(url, api_key=api_key)
    scrapes: deque[Scrape] = deque([source.read()], maxlen=max(2, round(window_s / interval_s) + 1))
    console = Console()
    try:
        if once:
            while len(scrapes) < (scrapes.maxlen or 2):
                time.sleep(interval_s)
                scrapes.append(source.read())
            console.print(view(source.url, Window(list(scrapes))))
            return
        with Live(
            Text(f"reading {source.url}"), console=console, screen=console.is_terminal, auto_refresh=False
        ) as live:
            while True:
                time.sleep(interval_s)
                live.update(_next(source, scrapes), refresh=True)
    except KeyboardInterrupt:
        return


def _next(source: PageSource, scrapes: deque[Scrape]) -> RenderableType:
    """Read once more. A server that does not answer is shown as such, with its last figures below."""
    trouble = ""
    try:
        scrapes.append(source.read())
    except MetricsPageError as error:
        trouble = str(error)
    shown = view(source.url, Window(list(scrapes))) if len(scrapes) > 1 else Text("")
    return Group(Text(trouble, "bold red"), shown) if trouble else shown


def view(url: str, window: Window) -> RenderableType:
    """The whole screen for one window: a gateway's if it has a gateway's metrics, else an engine's."""
    is_gateway = window.has("foveal_gateway_requests_received_total")
    memory = window.latest("process_resident_memory_bytes")
    cpu = window.rate("process_cpu_seconds_total") + window.rate("foveal_engine_cpu_seconds_total")
    head = Text.assemble(
        (" foveal top ", "reverse bold"),
        f"  {'gateway' if is_gateway else 'engine'} {url}",
        (f"   last {window.seconds:.0f} s", "dim"),
        (f"   CPU {100 * cpu:.0f} %", "dim"),
        (f"   memory {memory / 2**20:,.0f} MiB" if memory else "", "dim"),
        ("   DRAINING" if window.latest("foveal_gateway_draining") else "", "bold red"),
    )
    return Group(head, gateway_view(window) if is_gateway else engine_view(window))
