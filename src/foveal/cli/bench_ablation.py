"""foveal bench ablation MODEL"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from foveal.cli import engine_options as options
from foveal.cli.wide_console import wide_console
from foveal.core.errors import ConfigurationError
from foveal.evaluation.peers.bandwidth import BandwidthMeter

__all__ = ["ablation"]


def ablation(
    model: options.Model,
    concurrency: Annotated[int, typer.Option(help="Clients; each asks again when it is answered.")] = 8,
    requests: Annotated[int, typer.Option(help="Per round: a third new pictures, two thirds repeated ones.")] = 24,
    new_tokens: Annotated[int, typer.Option(help="Tokens of the longest answers; others are shorter.")] = 64,
    rounds: Annotated[int, typer.Option(help="Every stage once a round; figures are medians.")] = 5,
    threads: Annotated[int, typer.Option(help="CPU threads of every stage.")] = 2,
    speculate: Annotated[str, typer.Option(help="Guessing in the last stage: ngram, auto, draft:PATH.")] = "ngram",
    stage: Annotated[
        list[int] | None,
        typer.Option(help="Only stages of these numbers, from 0.  [default: all]", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed draws the same pictures.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write settings and results to this file.")] = None,
) -> None:
    """Switch one thing on after the other, from transformers to everything we have, and measure all in one run.

    Example: foveal bench ablation .demo/foveal-demo --concurrency 8 --speculate draft:.demo/foveal-draft
    """
    if min(concurrency, requests, rounds, threads) < 1 or new_tokens < 16:
        raise ConfigurationError(
            "--concurrency, --requests, --rounds and --threads must be at least 1, --new-tokens at least 16"
        )
    from foveal.pipeline.ablation.run import AblationPlan, load_systems, run_ablation
    from foveal.pipeline.ablation.stages import ladder

    stages = ladder(concurrency, speculate=speculate)
    if stage and not all(0 <= number < len(stages) for number in stage):
        raise ConfigurationError(f"--stage goes from 0 to {len(stages) - 1}")
    plan = AblationPlan(
        model=model,
        stages=tuple(stages[number] for number in sorted(set(stage))) if stage else tuple(stages),
        concurrency=concurrency,
        requests=requests,
        new_tokens=new_tokens,
        rounds=rounds,
        threads=threads,
        seed=seed,
    )
    console = wide_console()

    def tell(line: str) -> None:
        console.print(line, highlight=False, markup=False)

    report = {"model": Path(model).name, **run_ablation(plan, load_systems(plan, tell), BandwidthMeter(threads), tell)}
    _print(console, report)
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=1) + "\n")
        console.print(f"written to {json_file}")


def _print(console: Console, report: dict[str, Any]) -> None:
    kind = "pictures and text" if report["images"] else "text"
    console.print(
        f"{report['model']}, {kind}, {report['concurrency']} clients, answers up to {report['new_tokens']} tokens, "
        f"{report['threads']} threads, medians of {report['rounds']} rounds"
    )
    table = Table()
    names = (
        "stage",
        "TTFT p50 ms",
        "p95",
        "tok/s",
        "req/s",
        "busy cores",
        "rows/step",
        "x before",
        "x first",
        "same",
        "GB/s",
    )
    for name in names:
        table.add_column(name, justify="left" if name == "stage" else "right", no_wrap=name == "stage")
    for row in report["rows"]:
        table.add_row(
            row["stage"],
            f"{row['ttft_p50_ms']:.0f}",
            f"{row['ttft_p95_ms']:.0f}",
            f"{row['tokens_per_s']:.1f}",
            f"{row['requests_per_s']:.2f}",
            f"{row['busy_cores']:.2f}",
            f"{row['rows_per_step']:.1f}",
            f"{row['over_the_stage_before']:.2f}",
            f"{row['over_the_first']:.2f}",
            f"{row['agreement_with_the_first']:.0%}",
            f"{row['gb_per_s']:.0f}",
        )
    console.print(table)
