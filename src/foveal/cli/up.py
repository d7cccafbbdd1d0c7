"""foveal up MODEL --replicas 2"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from foveal.cli.gateway import announcer, log_to
from foveal.core.errors import ConfigurationError
from foveal.gateway.config.gateway import GatewayConfig
from foveal.gateway.config.load import load_config
from foveal.gateway.config.models import BackendConfig, ModelConfig
from foveal.gateway.config.telemetry import LoggingConfig
from foveal.gateway.serving.runner import run_gateway
from foveal.gateway.supervision.supervisor import ChildSpec, Supervisor

__all__ = ["command"]

command = typer.Typer(add_completion=False)
_ENGINE_HOST = "127.0.0.1"


@command.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def up(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Model directory, as for `foveal serve`.")],
    replicas: Annotated[int, typer.Option(min=1, help="Engine processes.")] = 1,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the gateway; 0 takes a free one.")] = 8080,
    served_model_name: Annotated[
        str | None, typer.Option(help="Name that requests use.  [default: the directory's]")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with everything else: tenants, limits, queue, caches.")
    ] = None,
    max_in_flight: Annotated[
        int, typer.Option(min=1, help="Requests that one replica gets at once; the rest waits in the gateway.")
    ] = 32,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads per replica.  [default: the cores, shared out]")
    ] = None,
    log_dir: Annotated[
        Path | None, typer.Option(help="Write the replicas' logs there instead of to the terminal.")
    ] = None,
    log_format: Annotated[str, typer.Option(help="Of the gateway: text, or json with one object per line.")] = "text",
) -> None:
    """Serve a model by several engine processes behind one gateway; those that die are started again.

    Options that are not listed here go to each `foveal serve`.

    Example: foveal up .demo/foveal-demo --replicas 2 --quantize int8
    """
    name = served_model_name or Path(model).resolve().name
    ports = _free_ports(replicas)
    backends = tuple(
        BackendConfig(url=f"http://{_ENGINE_HOST}:{engine_port}", id=f"replica-{number}", max_in_flight=max_in_flight)
        for number, engine_port in enumerate(ports)
    )

    def load() -> GatewayConfig:
        base = load_config(config) if config else GatewayConfig(models={}, logging=_logging(log_format))
        if name in base.models:
            raise ConfigurationError(f"{config} names backends for model {name}; leave it out, `up` starts them")
        models = {**base.models, name: ModelConfig(name=name, backends=backends)}
        return replace(base, models=models, listen=replace(base.listen, host=host, port=port))

    if log_dir is not None:
        log_dir.mkdir(parents=True, exist_ok=True)
    per_replica = threads or max(1, len(os.sched_getaffinity(0)) // replicas)
    children = [
        ChildSpec(
            name=backend.name,
            command=(
                *(sys.executable, "-m", "foveal.cli.app", "serve", model, "--host", _ENGINE_HOST),
                *("--port", str(engine_port), "--served-model-name", name, "--threads", str(per_replica)),
                *context.args,
            ),
            log=log_dir / f"{backend.name}.log" if log_dir else None,
        )
        for backend, engine_port in zip(backends, ports, strict=True)
    ]
    loaded = load()
    log_to(loaded)
    started = announcer(Console(stderr=True), loaded)
    raise typer.Exit(uvloop.run(_run(children, load, started)))


async def _run(children: list[ChildSpec], load: Callable[[], GatewayConfig], started: Callable[[str], None]) -> int:
    async with Supervisor(children):
        return await run_gateway(load, started)


def _logging(log_format: str) -> LoggingConfig:
    if log_format not in ("text", "json"):
        raise ConfigurationError(f"--log-format is {log_format!r}; it must be text or json")
    return LoggingConfig(format=log_format)  # type: ignore[arg-type]


def _free_ports(count: int) -> list[int]:
    """Held open together while they are chosen, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((_ENGINE_HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
