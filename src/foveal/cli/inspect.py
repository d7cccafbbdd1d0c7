"""foveal inspect DIR"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.text import Text

from foveal.artifacts.model_files import model_files, weight_bytes
from foveal.artifacts.passport import Passport
from foveal.artifacts.passport_file import has_passport, read_passport
from foveal.artifacts.verification import verify
from foveal.cli.passport_tables import passport_tables
from foveal.core.errors import ArtifactError, ConfigurationError

__all__ = ["command"]

command = typer.Typer(add_completion=False)


@command.command()
def inspect(
    directory: Annotated[Path, typer.Argument(help="Model directory.", metavar="DIR")],
    layers: Annotated[bool, typer.Option("--layers", help="List every linear layer, not only the worst.")] = False,
    check: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Read all files and compare their digests.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Print a model's passport and check that the files are those it lists. Exit code 1 if they are not.

    Example: foveal inspect .demo/foveal-demo-w4a16-gptq
    """
    directory = directory.expanduser()
    if not directory.is_dir():
        raise ConfigurationError(f"there is no directory {directory}; give a model directory")
    if not has_passport(directory):
        _without_passport(directory, as_json)
        return
    passport, problem = _read(directory, check)
    if as_json:
        print(json.dumps(_record(passport, problem, check), indent=1))
    else:
        _show(Console(), passport, problem, check=check, layers=layers)
    if problem is not None:
        raise typer.Exit(1)


def _read(directory: Path, check: bool) -> tuple[Passport | None, ArtifactError | None]:
    try:
        passport = read_passport(directory)
    except ArtifactError as error:
        return None, error
    if check:
        columns = (TextColumn("Reading {task.description}"), BarColumn(), DownloadColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("files", total=None)
            try:
                verify(directory, progress=lambda done, total: bar.update(task, completed=done, total=total))
            except ArtifactError as error:
                return passport, error
    return passport, None


def _show(
    console: Console, passport: Passport | None, problem: ArtifactError | None, *, check: bool, layers: bool
) -> None:
    if passport is not None:
        console.print(passport_tables(passport, all_layers=layers))
    if problem is not None:
        console.print(Text.assemble(("digests: ", "bold red"), str(problem)), soft_wrap=True)
    elif passport is not None and check:
        count = len(passport.files)
        console.print(Text(f"digests: all {count} files are those that the passport lists", style="green"))
    else:
        console.print(Text("digests: not checked", style="yellow"))


def _record(passport: Passport | None, problem: ArtifactError | None, check: bool) -> dict[str, Any]:
    record: dict[str, Any] = {"passport": None, "verified": check and problem is None, "problem": None}
    if passport is not None:
        record["passport"] = {"passport_digest": passport.digest, **msgspec.to_builtins(passport)}
    if problem is not None:
        record["problem"] = {"kind": type(problem).__name__, "message": str(problem)}
    return record


def _without_passport(directory: Path, as_json: bool) -> None:
    files = model_files(directory)
    size = weight_bytes(directory)
    if as_json:
        print(json.dumps({"passport": None, "verified": False, "problem": None, "files": files, "weight_bytes": size}))
        return
    console = Console()
    text = f"{directory} has no passport: nothing is known of how it was made, and its files cannot be checked."
    console.print(Text(text), soft_wrap=True)
    console.print(Text(f"{len(files)} model files, {size / 1e6:,.1f} MB of weights"))
