"""`foveal demo-model`: assemble the demo VLM."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

__all__ = ["command"]

command = typer.Typer(add_completion=False)


@command.command()
def demo_model(
    directory: Annotated[Path, typer.Argument(help="where to write the checkpoint (630 MB), e.g. models/demo")],
    cache_dir: Annotated[
        Path | None, typer.Option(help="where to keep downloads (400 MB); default ~/.cache/foveal/demo-model")
    ] = None,
) -> None:
    """Assemble the demo VLM: download its parts, check them, convert and merge.

    A second run finds the finished model and needs no network.

    Example: foveal demo-model models/demo
    """
    from foveal.demo.assemble import assemble_demo_model

    console = Console(stderr=True)
    began = time.monotonic()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        work = bar.add_task("demo model", total=1.0)
        path = assemble_demo_model(
            directory, cache_dir, lambda stage, share: bar.update(work, description=stage, completed=share)
        )
    console.print(f"The demo model is in {path} ({time.monotonic() - began:.0f} s). Next: foveal serve {path}")
