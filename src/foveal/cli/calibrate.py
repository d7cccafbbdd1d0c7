"""foveal calibrate MODEL"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from foveal.cli import engine_options as flags
from foveal.cli.calibration_tables import calibration_tables
from foveal.engine.config import EngineConfig
from foveal.planning.latency.latency_file import save_calibration

__all__ = ["command"]

command = typer.Typer(add_completion=False)


@command.command()
def calibrate(
    model: flags.Model,
    dtype: flags.Dtype = "auto",
    decoder: flags.Decoder = "auto",
    quantize: flags.Quantize = "none",
    kv_dtype: flags.KvDtype = "auto",
    max_model_len: flags.MaxModelLen = None,
    max_num_seqs: flags.MaxNumSeqs = 64,
    max_num_batched_tokens: flags.MaxBatchedTokens = 512,
    block_size: flags.BlockSize = 2,
    threads: flags.Threads = None,
    rounds: Annotated[int, typer.Option(help="Measurements of each step; the median counts. At least 3.")] = 7,
    budget: Annotated[
        float, typer.Option(help="Seconds after which no further round begins, once 3 are done.")
    ] = 180.0,
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="Measure the vision encoder too.")] = True,
    cpu_time: Annotated[
        bool,
        typer.Option("--cpu-time/--wall-time", help="Count processor time: for a machine that others use meanwhile."),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write here as well, for another machine's planning.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the calibration as JSON instead.")] = False,
) -> None:
    """Measure how long steps take on this machine, and fit the latency model that the engine plans with.

    Give the flags that `serve` gets: a calibration counts for one machine, model, precision and number of threads.

    Example: foveal calibrate .demo/foveal-demo --quantize int8
    """
    from foveal.engine.calibration.calibrate import calibrate as run

    config = EngineConfig(
        model=model,
        dtype=dtype,  # type: ignore[arg-type]
        decoder=decoder,  # type: ignore[arg-type]
        quantize=quantize,  # type: ignore[arg-type]
        kv_dtype=kv_dtype,  # type: ignore[arg-type]
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        block_size=block_size,
        num_threads=threads,
        warmup=False,
    )
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:45}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("loading", total=None)
        found = run(
            config,
            rounds=rounds,
            budget_s=budget,
            pictures=pictures,
            cpu_time=cpu_time,
            on_progress=lambda name, done, total: bar.update(task, description=name, completed=done, total=total),
        )
    path = save_calibration(found)
    if output is not None:
        save_calibration(found, output.parent, name=output.name)
    if as_json:
        print(json.dumps(found.as_dict(), indent=1))
        return
    out = Console()
    for table in calibration_tables(found):
        out.print(table)
    out.print(f"written to {path}", style="dim", soft_wrap=True)
