"""foveal bench peers MODEL"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from foveal.cli.bench_peers_table import peers_table
from foveal.cli.wide_console import wide_console
from foveal.core.errors import ConfigurationError
from foveal.evaluation.peers.bandwidth import BandwidthMeter
from foveal.evaluation.peers.comparison import Comparison, ComparisonPlan, QualityTexts
from foveal.evaluation.peers.environment import choose_participants, read_environments
from foveal.evaluation.peers.quality_texts import cut_texts
from foveal.evaluation.peers.report import report_of
from foveal.evaluation.peers.workload import parse_workload
from foveal.evaluation.text_corpus import fetch_wiki_summaries, read_text

__all__ = ["peers"]

_WINDOW_TOKENS = 256
_PROMPT_TOKENS = 64


def peers(
    model: Annotated[Path, typer.Argument(help="Directory of a text-only Llama checkpoint.", metavar="MODEL")],
    environments: Annotated[
        Path, typer.Option(help="Folder that benchmarks/peers/environments.py has filled.", show_default=False)
    ],
    engine: Annotated[
        list[str] | None,
        typer.Option(help="ENGINE or ENGINE:MODE, several times.  [default: all there]", show_default=False),
    ] = None,
    workload: Annotated[
        list[str] | None,
        typer.Option(
            help="CONCURRENCYxPROMPT+NEW tokens, several times.  [default: 1x256+128 16x128+128]", show_default=False
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Every engine once a round, in changing order.")] = 5,
    threads: Annotated[int, typer.Option(help="CPU threads of every engine.")] = 2,
    quality: Annotated[bool, typer.Option(help="Compare logits and greedy answers with float32 first.")] = True,
    text: Annotated[
        Path | None,
        typer.Option(help="Text for the quality column.  [default: encyclopaedia summaries]", show_default=False),
    ] = None,
    windows: Annotated[int, typer.Option(help="Windows of 256 tokens for perplexity and logits.")] = 8,
    prompts: Annotated[int, typer.Option(help="Beginnings of 64 tokens that are continued by 32.")] = 8,
    seed: Annotated[int, typer.Option(help="The same seed asks the same prompts.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write settings and results to this file.")] = None,
) -> None:
    """Measure other engines and ours on the same weights, prompts and threads, by turns.

    Example: foveal bench peers models/smollm2-135m --environments peers --engine foveal:int4 --engine openvino
    """
    if rounds < 1 or threads < 1:
        raise ConfigurationError(f"--rounds is {rounds} and --threads is {threads}; both must be at least 1")
    console = wide_console()
    offered = read_environments(environments)
    plan = ComparisonPlan(
        model=model.resolve(),
        participants=tuple(choose_participants(list(offered.values()), engine or [])),
        workloads=tuple(parse_workload(text) for text in workload or ("1x256+128", "16x128+128")),
        rounds=rounds,
        threads=threads,
        vocabulary=_vocabulary(model),
        texts=_texts(model, text, windows, prompts) if quality else None,
        seed=seed,
    )
    comparison = Comparison(plan, offered, BandwidthMeter(threads), tell=lambda line: _tell(console, line))
    outcomes = comparison.run()
    report = report_of(plan, outcomes, {name: found.versions for name, found in offered.items()})
    console.print(peers_table(report))
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=1) + "\n")
        console.print(f"written to {json_file}")
    if not any(outcome.measurements for outcome in outcomes):
        raise typer.Exit(1)


def _tell(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False)


def _vocabulary(model: Path) -> int:
    try:
        config: dict[str, Any] = json.loads((model / "config.json").read_text())
    except OSError as error:
        raise ConfigurationError(f"{model} is no checkpoint directory: {error.strerror}") from None
    if "vocab_size" not in config:
        raise ConfigurationError(
            f"{model} is not a text-only checkpoint, which is all that every peer reads. For a LLaVA: "
            "python benchmarks/peers/language_model.py VLM_DIRECTORY OUT_DIRECTORY"
        )
    return int(config["vocab_size"])


def _texts(model: Path, text: Path | None, windows: int, prompts: int) -> QualityTexts:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    # The beginning is enough, and tokenizing all of it takes a while.
    content = read_text(text or fetch_wiki_summaries())[: 16 * (windows + prompts) * _WINDOW_TOKENS]
    ids: Sequence[int] = tokenizer.encode(content, add_special_tokens=False).ids
    return cut_texts(
        ids,
        windows=windows,
        window_tokens=_WINDOW_TOKENS,
        prompts=prompts,
        prompt_tokens=_PROMPT_TOKENS,
        new_tokens=32,
    )
