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

from foveal.core.errors import ConfigurationError
from foveal.gateway.config.gateway import GatewayConfig
from foveal.gateway.config.load import load_config
from foveal.gateway.serving.runner import run_gateway
from foveal.observability.logs import configure_logging

__all__ = ["announcer", "command", "log_to"]

command = typer.Typer(add_completion=False)


@command.command()
def gateway(
    config: Annotated[Path, typer.Argument(help="YAML file with models, backends, tenants and limits.")],
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: the file's]")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one.  [default: the file's]")
    ] = None,
) -> None:
    """Serve any number of OpenAI servers behind one address. SIGHUP reads the file again; SIGTERM drains.

    Example: foveal gateway examples/gateway.yaml --port 8080
    """

    def load() -> GatewayConfig:
        loaded = load_config(config)
        listen = loaded.listen
        listen = replace(listen, host=host or listen.host, port=listen.port if port is None else port)
        return replace(loaded, listen=listen)

    loaded = load()
    console = Console(stderr=True)
    log_to(loaded)
    raise typer.Exit(uvloop.run(run_gateway(load, on_started=announcer(console, loaded))))


def log_to(config: GatewayConfig) -> None:
    """Raises ConfigurationError."""
    logging = config.logging
    try:
        configure_logging(logging.level, logging.format)
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
