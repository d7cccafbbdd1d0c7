"""Flags and progress bars of the commands that measure models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from foveal.core.errors import ConfigurationError

if TYPE_CHECKING:
    from foveal.evaluation.observation import OnStage
    from foveal.evaluation.suite import Suite
    from foveal.models.run_formats import RunFormats

__all__ = ["CacheDir", "EasyVqa", "Quick", "Seed", "Text", "make_suite", "refuse_unwritable", "run_formats", "stages"]

Quick = Annotated[
    bool,
    typer.Option(
        "--quick", help="A tenth of the questions: a first look, too few for the gate to exclude small losses."
    ),
]
EasyVqa = Annotated[
    str, typer.Option(help="Folder easy_vqa/data; auto downloads the easy-vqa wheel (3 MB) once; none leaves it out.")
]
Text = Annotated[
    str,
    typer.Option(
        help="English text for the perplexity; auto downloads encyclopaedia summaries (5 MB) once; none skips it."
    ),
]
Seed = Annotated[int, typer.Option(help="Other held-out pictures and questions.")]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        help="Where downloads and the base's answers are kept.  [default: ~/.cache/foveal/evaluation]",
        show_default=False,
    ),
]


def refuse_unwritable(path: Path | None) -> None:
    """Raise ConfigurationError before minutes of measurement whose result could not be written."""
    if path is None:
        return
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ConfigurationError(f"{path} is no file in an existing directory. Give the name of a file to write.")


def make_suite(quick: bool, seed: int, easy_vqa: str, text: str, cache_dir: Path | None, console: Console) -> Suite:
    """The suite with its data; says on the console what had to be left out."""
    from foveal.evaluation.suite import DEFAULT, QUICK
    from foveal.pipeline.suite_data import resolve_suite

    suite = resolve_suite(QUICK if quick else DEFAULT, seed=seed, easy_vqa=easy_vqa, text=text, cache_dir=cache_dir)
    for part, reason in suite.missing.items():
        console.print(f"[yellow]{part} is not measured:[/] {escape(reason)}", highlight=False, soft_wrap=True)
    return suite


def run_formats(dtype: str, quantize: str, kv_dtype: str) -> RunFormats:
    """Raises ConfigurationError."""
    from foveal.models.run_formats import RunFormats

    return RunFormats(dtype=dtype, quantize=quantize, kv_dtype=kv_dtype)  # type: ignore[arg-type]


@contextmanager
def stages(console: Console) -> Iterator[OnStage]:
    """One bar per stage, with the time it took and will take."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:

        def on_stage(name: str, steps: int):  # type: ignore[no-untyped-def]
            task = bars.add_task(name, total=steps)
            return lambda done: bars.advance(task, done)

        yield on_stage
