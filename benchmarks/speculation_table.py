"""Speculative decoding by K and task: acceptance, tokens per step, and speed beside plain decoding.

    python benchmarks/speculation_table.py --model .demo/foveal-demo --draft .demo/foveal-demo-draft

One request at a time. Within a round every system answers the same requests, one system after the other; figures are
medians over requests and rounds. Rows with a K always guess K tokens; "adaptive" is what a server does. Every answer is
compared with plain decoding's, token by token.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))
from harness.record import write_result
from harness.speculation_tasks import TASKS, Answer, answer, make_tasks

from foveal.engine.build import build_loop
from foveal.engine.config import EngineConfig
from foveal.engine.execution.guided import GuideFactory
from foveal.engine.loop import EngineLoop
from foveal.models.loading import load_processor
from foveal.models.run_formats import RunFormats


@dataclass(frozen=True)
class System:
    """One row of the table."""

    proposers: str
    """As for --speculate; empty for plain decoding."""
    tokens: int | None = None
    """Fixed K; None adapts."""

    @property
    def name(self) -> str:
        if not self.proposers:
            return "plain"
        names = self.proposers.replace("auto", "grammar+ngram").replace(",", "+").split(":")[0]
        return f"{names}, {'adaptive' if self.tokens is None else f'K={self.tokens}'}"


def systems_of(draft: str | None, lengths: list[int]) -> list[System]:
    systems = [System("")] + [System("auto", tokens) for tokens in lengths]
    if draft:
        systems += [System(f"draft:{draft}", tokens) for tokens in lengths]
    systems.append(System("auto"))
    if draft:
        systems += [System(f"draft:{draft}"), System(f"auto,draft:{draft}")]
    return systems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--draft")
    parser.add_argument("--lengths", type=int, nargs="*", default=[3, 5, 7, 10])
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=TASKS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--quantize", default="none", help="as served: none, int8, int4; the draft is loaded alike")
    parser.add_argument("--kv-dtype", default="auto")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    console = Console()
    formats = RunFormats(dtype=options.dtype, quantize=options.quantize, kv_dtype=options.kv_dtype)
    model = formats.load(options.model)
    draft = formats.load(options.draft) if options.draft else None
    processor = load_processor(options.model)
    guides = GuideFactory(processor.tokenizer, model.spec.eos_token_ids)
    systems = systems_of(options.draft, options.lengths)
    loops = {system: _loop(system, options.model, formats, model, draft, guides) for system in systems}
    for loop in loops.values():
        loop.warm_up()
    figures: dict[str, Any] = {
        "quantize": options.quantize,
        "kv_dtype": options.kv_dtype,
        "dtype": str(model.dtype),
        "threads": options.threads,
        "rounds": options.rounds,
    }
    tasks = make_tasks(processor, options.tokens)
    feature_row_bytes = model.spec.feature_width * model.dtype.itemsize
    for name in options.tasks:
        answers: dict[System, list[Answer]] = {system: [] for system in systems}
        before = {system: loop.stats() for system, loop in loops.items()}
        for _ in range(options.rounds):
            for system, loop in loops.items():
                answers[system] += answer(loop, tasks[name], feature_row_bytes)
        rows = _rows(systems, loops, answers, before)
        figures[name] = rows
        console.print(_table(name, rows))
    print("written to", write_result("speculation_table", figures))


def _loop(system: System, path: str, formats: RunFormats, model: Any, draft: Any, guides: GuideFactory) -> EngineLoop:
    config = EngineConfig(
        model=path,
        kv_dtype=formats.kv_dtype,
        num_kv_blocks=1000,
        max_model_len=2000,
        speculate=system.proposers or None,
        speculate_tokens=system.tokens or 8,
        speculate_adaptive=system.tokens is None,
    )
    return build_loop(config, model, guide_factory=guides, draft=draft)


def _rows(
    systems: list[System],
    loops: dict[System, EngineLoop],
    answers: dict[System, list[Answer]],
    before: dict[System, Any],
) -> list[dict[str, Any]]:
    plain = answers[systems[0]]
    rows = []
    for system in systems:
        now, then = loops[system].stats(), before[system]
        row: dict[str, Any] = {
            "system": system.name,
            "tokens_per_s": round(statistics.median(a.tokens_per_s for a in answers[system]), 1),
            # Each answer beside plain decoding's of the same round: what slows the machine slows both.
            "speed_ratio": round(
                statistics.median(a.tokens_per_s / b.tokens_per_s for a, b in zip(answers[system], plain, strict=True)),
                2,
            ),
            "tokens_per_step": round(statistics.mean(a.tokens_per_step for a in answers[system]), 2),
            "identical": sum(a.token_ids == b.token_ids for a, b in zip(answers[system], plain, strict=True)),
            "answers": len(plain),
        }
        for name in ("grammar", "ngram", "draft"):
            drafted = getattr(now, f"spec_drafted_{name}") - getattr(then, f"spec_drafted_{name}")
            accepted = getattr(now, f"spec_accepted_{name}") - getattr(then, f"spec_accepted_{name}")
            if drafted:
                row[name] = {"drafted": drafted, "accepted": accepted, "share": round(accepted / drafted, 3)}
        rows.append(row)
    return rows


def _table(name: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=name)
    for column in (
        "system",
        "tok/s",
        "x plain",
        "tokens per step",
        "accepted: grammar",
        "n-gram",
        "draft",
        "identical",
    ):
        table.add_column(column, justify="left" if column == "system" else "right")
    for row in rows:
        shares = [
            f"{row[p]['accepted']}/{row[p]['drafted']} ({row[p]['share']:.0%})" if p in row else ""
            for p in ("grammar", "ngram", "draft")
        ]
        table.add_row(
            row["system"],
            str(row["tokens_per_s"]),
            f"{row['speed_ratio']:.2f}",
            f"{row['tokens_per_step']:.2f}",
            *shares,
            f"{row['identical']}/{row['answers']}",
        )
    return table


if __name__ == "__main__":
    main()
