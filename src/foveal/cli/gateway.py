"""foveal gateway gateway.yaml"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from foveal.core.errors import ConfigurationError
from foveal.gateway.config.gateway import GatewayConfig
from foveal.gateway.config.load import load_config
from foveal.gateway.serving.runner import run_gateway
from foveal.observability.logs import configure_logging

__all__ = ["command", "log_to", "summary"]

command = typer.Typer(add_completion=False)


@command.command()
def gateway(
    config: Annotated[Path, typer.Argument(help="YAML file with models, backends, tenants and limits.")],
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: the file's]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.  [default: the file's]")] = None,
    check: Annotated[bool, typer.Option("--check", help="Check the file, print what it says, and exit.")] = False,
) -> None:
    """Serve any number of OpenAI servers behind one address. SIGHUP reads the file again; SIGTERM drains.

    Example: foveal gateway examples/gateway.yaml --check
    """

    def load() -> GatewayConfig:
        loaded = load_config(config)
        listen = loaded.listen
        listen = replace(listen, host=host or listen.host, port=listen.port if port is None else port)
        return replace(loaded, listen=listen)

    loaded = load()
    console = Console(stderr=True)
    if check:
        console.print(summary(loaded))
        return
    log_to(loaded)
    raise typer.Exit(uvloop.run(run_gateway(load, on_started=announcer(console, loaded))))


def log_to(config: GatewayConfig) -> None:
    """Raises ConfigurationError."""
    logging = config.logging
    try:
        configure_logging(logging.level, "json" if logging.format == "json" else "text")
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def announcer(console: Console, config: GatewayConfig) -> Callable[[str], None]:
    names = ", ".join(config.models)

    def announce(url: str) -> None:
        number = len(config.backends)
        console.print(
            f"[bold green]listening[/] on {url} for {escape(names)} ({number} {'backend' if number == 1 else 'backends'}); "
            f"{url}/ready says when the first one is up",
            highlight=False,
        )

    return announce


def summary(config: GatewayConfig) -> Table:
    """Models, versions and backends, as one table."""
    table = Table(title="gateway", title_justify="left")
    for column in ("model", "version", "weight", "backend", "url", "slots", "fallback"):
        table.add_column(column, overflow="fold")
    for model in config.models.values():
        for version in model.all_versions:
            for backend in version.backends:
                table.add_row(
                    escape(model.name),
                    escape(version.version),
                    f"{version.weight:g}",
                    escape(backend.name),
                    escape(backend.url),
                    str(backend.max_in_flight),
                    escape(model.fallback or ""),
                )
    return table
