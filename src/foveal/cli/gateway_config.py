"""foveal gateway-config check | diff | schema"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from foveal.gateway.config.diff import diff as compare
from foveal.gateway.config.load import load_config
from foveal.gateway.config.problems import shown
from foveal.gateway.config.schema import config_schema

__all__ = ["command"]

command = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Check a gateway's configuration, compare two, print its schema."
)
Config = Annotated[Path, typer.Argument(help="Configuration file.", metavar="CONFIG")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]


@command.command()
def check(config: Config, as_json: AsJson = False) -> None:
    """Read a configuration as the gateway would, with the environment's secrets. Exit code 1 and all problems, by line.

    Example: foveal gateway-config check examples/gateway.yaml
    """
    found = load_config(config)
    facts = {
        "models": len(found.models),
        "backends": len(found.backends),
        "tenants": len(found.tenants),
        "keys_required": found.keys_required,
    }
    if as_json:
        print(json.dumps(facts))
        return
    access = "with keys" if found.keys_required else "open to everybody"
    Console().print(
        f"[bold green]good[/] {facts['models']} models, {facts['backends']} backends, {facts['tenants']} tenants, {access}",
        highlight=False,
    )


@command.command()
def diff(
    before: Annotated[Path, typer.Argument(help="The configuration that runs.", metavar="OLD")],
    after: Annotated[Path, typer.Argument(help="The one to load.", metavar="NEW")],
    as_json: AsJson = False,
) -> None:
    """Show what a reload (SIGHUP) would change, and what needs a restart.

    Example: foveal gateway-config diff gateway.yaml gateway-next.yaml
    """
    found = compare(load_config(before), load_config(after))
    if as_json:
        changes = [
            {"setting": shown(c.place), "before": c.before, "after": c.after, "needs_restart": c.needs_restart}
            for c in found.changes
        ]
        print(json.dumps(changes, indent=1))
        return
    console = Console(soft_wrap=True, highlight=False)
    for change in found.changes:
        console.print(f"{change}{'  (needs a restart)' if change.needs_restart else ''}", markup=False)
    if not found:
        console.print("no change")


@command.command()
def schema() -> None:
    """Print the JSON schema of the configuration file, for editors that complete and check YAML.

    Example: foveal gateway-config schema > gateway.schema.json
    """
    print(json.dumps(config_schema(), indent=1))
