"""foveal evaluate MODEL"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from foveal.cli import engine_options as flags
from foveal.cli import suite_options as suite_flags
from foveal.cli.evaluation_tables import evaluation_tables

__all__ = ["command"]

command = typer.Typer(add_completion=False)


@command.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="Checkpoint directory, compressed or not.", metavar="MODEL")],
    quick: suite_flags.Quick = False,
    easy_vqa: suite_flags.EasyVqa = "auto",
    text: suite_flags.Text = "auto",
    seed: suite_flags.Seed = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the evaluation record here.")] = None,
    cache_dir: suite_flags.CacheDir = None,
    dtype: flags.Dtype = "auto",
    quantize: flags.Quantize = "none",
    kv_dtype: flags.KvDtype = "auto",
    threads: flags.Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON instead.")] = False,
) -> None:
    """Measure a model: accuracy per task, captions, perplexity, whether it looks at the picture, speed and memory.

    Example: foveal evaluate .demo/foveal-demo --quick
    """
    import torch

    from foveal.pipeline.prove import evaluate_model

    if threads is not None:
        torch.set_num_threads(threads)
    suite_flags.refuse_unwritable(output)
    formats = suite_flags.run_formats(dtype, quantize, kv_dtype)
    progress = Console(stderr=True)
    suite = suite_flags.make_suite(quick, seed, easy_vqa, text, cache_dir, progress)
    with suite_flags.stages(progress) as on_stage:
        evaluation = evaluate_model(model, suite, formats, on_stage=on_stage).evaluation
    if output is not None:
        evaluation.write(output)
    if as_json:
        print(evaluation.to_json().decode())
    else:
        Console().print(evaluation_tables(evaluation))
