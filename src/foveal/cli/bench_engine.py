"""foveal bench engine MODEL"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from foveal.cli import engine_options as options
from foveal.cli.wide_console import wide_console
from foveal.core.errors import ConfigurationError
from foveal.evaluation.engine_report import EngineBatch, engine_report
from foveal.evaluation.peers.bandwidth import BandwidthMeter
from foveal.evaluation.peers.environment import Participant
from foveal.evaluation.peers.figures import Measurement
from foveal.evaluation.peers.workload import Workload

if TYPE_CHECKING:
    from foveal.engine.offline import OfflineEngine

__all__ = ["engine"]

_WARM_UP_TOKENS = 4
_WARM_UP_BLOCKS = 64
"""The engine warms up on more tokens than a short measurement needs."""


def engine(
    model: options.Model,
    concurrency: Annotated[
        list[int] | None, typer.Option(help="Requests at once, several times.  [default: 1 16]", show_default=False)
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(help="Random tokens per prompt.")] = 256,
    new_tokens: Annotated[int, typer.Option(help="Tokens per answer; the end token is ignored.")] = 128,
    rounds: Annotated[int, typer.Option(help="Every concurrency once a round; figures are medians.")] = 5,
    dtype: options.Dtype = "auto",
    decoder: options.Decoder = "auto",
    quantize: options.Quantize = "none",
    kv_dtype: options.KvDtype = "auto",
    max_batched_tokens: options.MaxBatchedTokens = 2048,
    threads: options.Threads = None,
    seed: Annotated[int, typer.Option(help="The same seed asks the same prompts.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write settings and results to this file.")] = None,
) -> None:
    """Measure the engine without a server: prefill and decode apart, beside the memory's bandwidth.

    Example: foveal bench engine models/smollm2-135m --quantize int8 --concurrency 1 --concurrency 16
    """
    settings = dict(locals())
    workloads = [Workload(count, prompt_tokens, new_tokens) for count in concurrency or (1, 16)]
    if min(rounds, prompt_tokens, new_tokens - 1, *(w.concurrency for w in workloads)) < 1:
        raise ConfigurationError(
            "--rounds, --prompt-tokens and --concurrency must be at least 1, and --new-tokens at least 2"
        )
    from foveal.engine.config import EngineConfig
    from foveal.engine.offline import OfflineEngine

    most = max(workload.concurrency for workload in workloads)
    config = EngineConfig(
        model=model,
        dtype=dtype,  # type: ignore[arg-type]
        decoder=decoder,  # type: ignore[arg-type]
        quantize=quantize,  # type: ignore[arg-type]
        kv_dtype=kv_dtype,  # type: ignore[arg-type]
        max_num_seqs=most,
        max_num_batched_tokens=max_batched_tokens,
        num_kv_blocks=most * (prompt_tokens + new_tokens + 16) // 2 + _WARM_UP_BLOCKS,
        enable_prefix_caching=False,
        num_threads=threads,
    )
    console = wide_console()
    with console.status("loading"):
        loaded = OfflineEngine(config)
    bandwidth = BandwidthMeter(config.threads)
    participant = Participant("foveal", f"{quantize if quantize != 'none' else dtype}")
    batches: list[EngineBatch] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("measuring", total=rounds * len(workloads))
        for workload in workloads:
            loaded.generate(workload.prompts(_vocabulary(loaded), seed=-1), _WARM_UP_TOKENS)
        for number in range(rounds):
            for workload in workloads:
                reading = bandwidth.gb_per_s()
                batches.append(_measure(loaded, participant, workload, number, seed, reading))
                progress.advance(task)
    settings |= {"json_file": str(json_file) if json_file else None, "threads": config.threads}
    report = engine_report(
        config.model_name,
        {**settings, "decoder": loaded.decoder, "kv_dtype": loaded.kv_dtype},
        batches,
        weight_bytes=loaded.weight_bytes,
        kv_bytes_per_token=loaded.kv_bytes_per_token,
    )
    console.print(_table(report))
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=1) + "\n")
        console.print(f"written to {json_file}")


def _measure(
    engine: OfflineEngine, participant: Participant, workload: Workload, number: int, seed: int, reading: float
) -> EngineBatch:
    prompts = [workload.prompts(_vocabulary(engine), seed + 2 * number + k) for k in (0, 1)]
    first = engine.generate(prompts[0], 1)
    used = _cpu_s()
    answers = engine.generate(prompts[1], workload.new_tokens)
    used = _cpu_s() - used
    measurement = Measurement(participant, workload, number, first.total_s, answers.total_s, reading)
    return EngineBatch(measurement, tuple(answers.first_s), used, answers.steps)


def _vocabulary(engine: OfflineEngine) -> int:
    return engine.loop.runner.model.spec.vocab_size


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system


def _table(report: dict[str, Any]) -> Table:
    settings = report["settings"]
    weights = (
        f"{report['weight_bytes'] / 1e6:.0f} MB weights a step, {report['kv_bytes_per_token'] / 1e3:.1f} kB KV a token"
    )
    title = f"{report['model']}, {settings['decoder']} decoder, {settings['threads']} threads, {weights}"
    table = Table(title=title, title_justify="left")
    names = ("concurrency", "decode tok/s", "lowest-highest", "TPOT ms", "prefill tok/s", "TTFT p50 ms", "output tok/s")
    for name in (*names, "busy cores", "GB/s", "of roofline"):
        table.add_column(name, justify="right")
    for row in report["rows"]:
        table.add_row(
            str(row["concurrency"]),
            f"{row['decode_tok_s']:.1f}",
            f"{row['decode_lowest']:.0f}-{row['decode_highest']:.0f}",
            f"{row['tpot_ms']:.2f}",
            f"{row['prefill_tok_s']:.0f}",
            f"{row['ttft_p50_ms']:.0f}",
            f"{row['output_tok_s']:.1f}",
            f"{row['busy_cores']:.2f}",
            f"{row['gb_per_s']:.0f}",
            f"{row['roofline']:.0%}",
        )
    return table
