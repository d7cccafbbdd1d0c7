"""foveal profile MODEL"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from foveal.cli import engine_options as options
from foveal.cli.wide_console import wide_console
from foveal.core.errors import ConfigurationError
from foveal.evaluation.peers.workload import Workload

if TYPE_CHECKING:
    from foveal.engine.offline import OfflineEngine

__all__ = ["command", "profile_app"]

_WARM_UP_BLOCKS = 64
"""The engine warms up on more tokens than a short measurement needs."""

command = profile_app = typer.Typer(add_completion=False, help="Show where the time of a step goes.")


@profile_app.command()
def profile(
    model: options.Model,
    concurrency: Annotated[int, typer.Option(help="Requests at once.")] = 1,
    prompt_tokens: Annotated[int, typer.Option(help="Random tokens per prompt.")] = 256,
    new_tokens: Annotated[int, typer.Option(help="Decode steps that are looked at.")] = 32,
    dtype: options.Dtype = "auto",
    decoder: options.Decoder = "auto",
    quantize: options.Quantize = "none",
    kv_dtype: options.KvDtype = "auto",
    max_batched_tokens: options.MaxBatchedTokens = 2048,
    threads: options.Threads = None,
    top: Annotated[int, typer.Option(help="Operators in the table, by their own time.")] = 12,
    trace: Annotated[
        Path | None, typer.Option(help="Write a trace here, for chrome://tracing or ui.perfetto.dev.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
) -> None:
    """Time the parts of a step, prefill and decode apart, then the operators below them with torch's profiler.

    Example: foveal profile models/smollm2-135m --quantize int4 --concurrency 16 --trace decode.json
    """
    if min(concurrency, prompt_tokens, new_tokens) < 1:
        raise ConfigurationError("--concurrency, --prompt-tokens and --new-tokens must be at least 1")
    from foveal.engine.config import EngineConfig
    from foveal.engine.offline import OfflineEngine

    config = EngineConfig(
        model=model,
        dtype=dtype,  # type: ignore[arg-type]
        decoder=decoder,  # type: ignore[arg-type]
        quantize=quantize,  # type: ignore[arg-type]
        kv_dtype=kv_dtype,  # type: ignore[arg-type]
        max_num_seqs=concurrency,
        max_num_batched_tokens=max_batched_tokens,
        num_kv_blocks=concurrency * (prompt_tokens + new_tokens + 16) // 2 + _WARM_UP_BLOCKS,
        enable_prefix_caching=False,
        num_threads=threads,
    )
    console = wide_console()
    with console.status("loading"):
        engine = OfflineEngine(config)
    workload = Workload(concurrency, prompt_tokens, new_tokens + 1)
    vocabulary = engine.loop.runner.model.spec.vocab_size
    engine.generate(workload.prompts(vocabulary, seed=-1), 4)
    # Plain timers first: torch's profiler adds microseconds to every operator.
    phases = {name: _spans(engine, workload, seed, name) for seed, name in enumerate(("prefill", "decode"))}
    operators = {name: _operators(engine, workload, name, trace if name == "decode" else None) for name in phases}
    detokenise_us = _detokenise_us(model, workload, vocabulary)
    for name, found in phases.items():
        console.print(_phase_table(f"{config.model_name}, {name}, {workload}, {engine.decoder} decoder", found))
        console.print(_operator_table(name, operators[name][:top]))
    console.print(f"detokenise, in the front end's process: {detokenise_us:.2f} us per token")
    if trace is not None:
        console.print(f"trace written to {trace}")
    if json_file is not None:
        document = {
            "model": config.model_name,
            "workload": str(workload),
            "decoder": engine.decoder,
            "quantize": quantize,
            "kv_dtype": engine.kv_dtype,
            "threads": config.threads,
            "phases": phases,
            "operators": operators,
            "detokenise_us_per_token": detokenise_us,
        }
        json_file.write_text(json.dumps(document, indent=1) + "\n")
        console.print(f"written to {json_file}")


def _spans(engine: OfflineEngine, workload: Workload, seed: int, phase: str) -> dict[str, Any]:
    """Per part: milliseconds a step and share. "decode" leaves the steps of the prompt out."""
    from foveal.engine.step_spans import KERNEL_SPANS, SpanTimes, watched

    times = SpanTimes()
    with watched(engine.loop, times.span):
        _run_phase(engine, workload, seed, phase, between=lambda: times.reset())
    steps = times.calls["step"]
    parts = [
        {
            "part": name,
            "kernels": name in KERNEL_SPANS,
            "ms_per_step": 1e3 * seconds / steps,
            "share": seconds / times.total_s,
        }
        for name, seconds in sorted(times.self_s.items(), key=lambda item: -item[1])
    ]
    return {
        "steps": steps,
        "ms_per_step": 1e3 * times.total_s / steps,
        "outside_kernels_ms": 1e3 * times.outside_kernels_s / steps,
        "outside_kernels_share": times.outside_kernels_s / times.total_s,
        "parts": parts,
    }


def _run_phase(engine: OfflineEngine, workload: Workload, seed: int, phase: str, between: Any) -> None:
    """Prompts to their first tokens; `between`; and, for decode, on to the end."""
    prompts = workload.prompts(engine.loop.runner.model.spec.vocab_size, seed)
    if phase == "prefill":
        engine.generate(prompts, 1)
        return
    engine.generate(prompts, workload.new_tokens, when_decoding=between)


def _operators(engine: OfflineEngine, workload: Workload, phase: str, trace: Path | None) -> list[dict[str, Any]]:
    """By their own time, largest first; our parts are entries too, as foveal::PART."""
    from torch.profiler import ProfilerActivity, profile, record_function

    from foveal.engine.step_spans import watched

    profiler = profile(activities=[ProfilerActivity.CPU])
    with watched(engine.loop, lambda part: record_function(f"foveal::{part}")):
        if phase == "prefill":
            with profiler:
                _run_phase(engine, workload, 2, phase, between=None)
        else:
            _run_phase(engine, workload, 3, phase, between=profiler.start)
            profiler.stop()
    if trace is not None:
        profiler.export_chrome_trace(str(trace))
    averages = sorted(profiler.key_averages(), key=lambda entry: -entry.self_cpu_time_total)
    total = sum(entry.self_cpu_time_total for entry in averages) or 1.0
    return [
        {
            "operator": entry.key,
            "calls": entry.count,
            "self_ms": entry.self_cpu_time_total / 1e3,
            "total_ms": entry.cpu_time_total / 1e3,
            "share": entry.self_cpu_time_total / total,
        }
        for entry in averages
    ]


def _detokenise_us(model: str, workload: Workload, vocabulary: int) -> float:
    from foveal.engine.text.detokenizer import detokenizer
    from foveal.engine.text.token_bytes import TokenBytes
    from foveal.models.loading import load_processor

    stream = detokenizer(TokenBytes(load_processor(model).tokenizer))
    ids = Workload(1, 4096, 2).prompts(min(vocabulary, 40_000), seed=0)[0]
    for token in ids:
        stream.append([token])
    started = time.perf_counter()
    for token in ids:
        stream.append([token])
    return 1e6 * (time.perf_counter() - started) / len(ids)


def _phase_table(title: str, found: dict[str, Any]) -> Table:
    outside = f"{found['outside_kernels_ms']:.3f} ms outside kernels ({found['outside_kernels_share']:.1%})"
    table = Table(title=f"{title}: {found['ms_per_step']:.2f} ms a step, {outside}", title_justify="left")
    for name in ("part", "ms a step", "share"):
        table.add_column(name, justify="left" if name == "part" else "right")
    for part in found["parts"]:
        name = part["part"] if part["kernels"] else f"[yellow]{part['part']}[/]"
        table.add_row(name, f"{part['ms_per_step']:.3f}", f"{part['share']:.1%}")
    return table


def _operator_table(phase: str, operators: list[dict[str, Any]]) -> Table:
    table = Table(title=f"{phase}: operators, under torch's profiler", title_justify="left")
    for name in ("operator", "calls", "self ms", "total ms", "share"):
        table.add_column(name, justify="left" if name == "operator" else "right")
    for entry in operators:
        table.add_row(
            entry["operator"],
            str(entry["calls"]),
            f"{entry['self_ms']:.2f}",
            f"{entry['total_ms']:.2f}",
            f"{entry['share']:.1%}",
        )
    return table
