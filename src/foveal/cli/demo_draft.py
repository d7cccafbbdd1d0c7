"""`foveal demo-draft`: write the demo model's draft as a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

__all__ = ["command"]

command = typer.Typer(add_completion=False)


@command.command()
def demo_draft(
    directory: Annotated[Path, typer.Argument(help="where to write the draft (155 MB), e.g. models/draft")],
    target: Annotated[Path, typer.Option(help="the demo model's checkpoint, whose embedding and head it shares")],
) -> None:
    """Write the demo model's draft: five small layers that guess the demo model's next words.

    The result is a plain language model. A second run finds it finished.

    Example: foveal demo-draft models/draft --target models/demo
    """
    from foveal.demo.draft.assemble import assemble_draft

    path = assemble_draft(directory, target)
    Console(stderr=True).print(f"The draft of {target} is in {path}.")
