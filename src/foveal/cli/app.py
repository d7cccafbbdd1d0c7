"""The `foveal` command. Each subcommand is one file, imported only when it runs, so that --help needs no torch."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from foveal import __version__

__all__ = ["COMMANDS", "app", "main"]

COMMANDS = {
    "demo-model": ("foveal.cli.demo_model", "Assemble the demo VLM from parts that package registries ship."),
    "demo-draft": ("foveal.cli.demo_draft", "Write the draft that guesses the demo VLM's next words."),
    "compress": ("foveal.cli.compress", "Make a model smaller, with a passport of what was done."),
    "evaluate": ("foveal.cli.evaluate", "Measure a model: tasks, text, sight, speed, memory."),
    "prove": ("foveal.cli.prove", "Accept or reject a compressed model against its base."),
    "inspect": ("foveal.cli.inspect", "Print a model's passport and check its files."),
    "calibrate": ("foveal.cli.calibrate", "Measure this machine, and fit the latency model."),
    "run": ("foveal.cli.run", "Ask one question, about pictures or not."),
    "chat": ("foveal.cli.chat", "Talk with a model in the terminal."),
    "serve": ("foveal.cli.serve", "Serve a model through an OpenAI-compatible API."),
    "up": ("foveal.cli.up", "Serve a model by several engines behind one gateway."),
    "gateway": ("foveal.cli.gateway", "Serve any number of OpenAI servers behind one address."),
    "gateway-config": ("foveal.cli.gateway_config", "Check a gateway's configuration, compare two, print its schema."),
    "keys": ("foveal.cli.keys", "Make, list and revoke the API keys of a gateway's tenants."),
    "bench": ("foveal.cli.bench", "Measure a server, the engine, other engines."),
    "top": ("foveal.cli.top", "Watch a gateway or an engine live in the terminal."),
    "diagnose": ("foveal.cli.diagnose", "Name what is wrong with a running server, why, and what to do."),
    "observe": ("foveal.cli.observe", "Write Grafana dashboards and Prometheus alert rules."),
    "profile": ("foveal.cli.profile", "Show where the time of a step goes."),
}
"""Name -> (module with a typer `command` app, one line of help), in the order of the work."""


class _LazyGroup(TyperGroup):
    """Lists the commands from the table above; imports one only to run it or to show its own help."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, line = COMMANDS[cmd_name]
        if cmd_name in sys.argv[1:2]:
            return typer.main.get_command(importlib.import_module(module).command)
        listed = typer.Typer()
        listed.command(cmd_name, help=line)(lambda: None)
        return typer.main.get_command(listed)


app = typer.Typer(
    cls=_LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="Foveal takes a trained vision-language model to a production endpoint its owner can defend.",
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        typer.echo(f"foveal {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point: errors raised on purpose become one line and exit code 1."""
    from rich.console import Console
    from rich.markup import escape

    from foveal.core.errors import FovealError

    try:
        app()
    except FovealError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
