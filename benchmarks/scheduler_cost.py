"""What a step costs outside the model: planning, batch building, sampling, verification, stopping, events.

    python benchmarks/scheduler_cost.py --model .demo/foveal-demo --quantize int8

Two tables. With a real model and 64 running requests: the share of a step's processor time that is not the model's, for
greedy decoding, two ways of sampling, and drafts to verify. With a model that answers at once, up to 1,000 requests:
time per running request, which must not grow. Requests that finish are replaced, so admission, prefix lookup and release
are included. Times are the engine thread's own processor time; give --threads 1 for a share of all the work.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))
from harness.record import write_result

from foveal.core.collector import calm_collector
from foveal.core.model_spec import ModelSpec
from foveal.core.sampling_params import SamplingParams
from foveal.engine.build import build_loop
from foveal.engine.config import EngineConfig
from foveal.engine.loop import EngineLoop
from foveal.engine.scheduling.request import Request
from foveal.models.image_input import PromptInput

RUNNING = (1, 16, 64, 256, 1000)
PROMPT_TOKENS = 96
OUTPUT_TOKENS = 96
KINDS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "temperature 0.7, top-p 0.9": {"temperature": 0.7, "top_p": 0.9},
    "temperature 1": {"temperature": 1.0},
    "greedy, drafts verified": {"temperature": 0.0},
}
SENTENCE = "One day a boy named Tim went to the park with his dog and they saw number {} there. "


class InstantModel:
    """Answers at once: always the same logits, with a vocabulary so small that walking it costs nothing."""

    dtype = torch.float32
    device = torch.device("cpu")

    def __init__(self, vocab: int, most_rows: int) -> None:
        self.spec = ModelSpec("instant", 1, 1, 1, 8, 8, vocab, 4096, (), 8, supports_images=False)
        self._hidden = torch.zeros(most_rows + 1024, 8)
        self._logits = torch.randn(most_rows, vocab, generator=torch.Generator().manual_seed(0))

    def encode_images(self, images: Sequence[Any]) -> list[torch.Tensor]:
        return []

    def rope_positions(self, prompt: PromptInput) -> tuple[torch.Tensor, int]:
        return torch.arange(len(prompt.token_ids))[None], 0

    def forward(self, step: Any, kv_cache: Any) -> torch.Tensor:
        return self._hidden[: len(step.token_ids)]

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._logits[: len(hidden)]


class ModelTimer:
    """Counts the thread's processor time inside the model."""

    def __init__(self, model: Any) -> None:
        self.seconds = 0.0
        for name in ("forward", "compute_logits", "encode_images"):
            setattr(model, name, self._timed(getattr(model, name)))

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            started = time.thread_time()
            result = call(*arguments)
            self.seconds += time.thread_time() - started
            return result

        return timed


class Load:
    """Keeps `running` requests in a loop."""

    def __init__(self, loop: EngineLoop, running: int, sampling: dict[str, Any], prompts: Sequence[list[int]]) -> None:
        self.loop, self.running, self.sampling, self.prompts = loop, running, sampling, prompts
        self.count = 0
        self.random = random.Random(0)

    def fill(self) -> None:
        while self.loop.scheduler.num_running + self.loop.scheduler.num_waiting < self.running:
            tokens = list(self.prompts[self.count % len(self.prompts)])
            # Lengths differ, so that requests do not all end in one step.
            most = self.random.randint(OUTPUT_TOKENS // 2, OUTPUT_TOKENS)
            sampling = SamplingParams(max_tokens=most, ignore_eos=True, **self.sampling)
            self.loop.add(Request(f"r{self.count}", tokens, sampling, 0.0), PromptInput(tokens), seed=self.count)
            self.count += 1

    def step(self) -> float:
        """Processor seconds; adding requests is the front end's and not counted."""
        self.fill()
        started = time.thread_time()
        self.loop.step()
        return time.thread_time() - started

    @property
    def decodes(self) -> bool:
        """Everybody decodes: no prompt in the next step."""
        return len(self.loop.scheduler.decoding) == self.running


def share_rows(model: Any, prompts: Sequence[list[int]], options: argparse.Namespace) -> list[dict[str, Any]]:
    """The real model: medians over steps in which all requests decode."""
    timer = ModelTimer(model)
    rows = []
    for kind, sampling in KINDS.items():
        config = EngineConfig(
            model=str(options.model),
            num_kv_blocks=options.running * (PROMPT_TOKENS + OUTPUT_TOKENS),
            max_num_seqs=options.running,
            kv_dtype="int8" if getattr(model, "native", None) is not None else "auto",
            num_threads=options.threads,
            latency_model="none",
            speculate="ngram" if "drafts" in kind else None,
            speculate_adaptive=False,
            speculate_tokens=2,
        )
        load = Load(build_loop(config, model), options.running, sampling, prompts)
        calm_collector()
        steps: list[tuple[float, float, int]] = []
        while len(steps) < options.steps:
            load.fill()
            counts = load.decodes
            timer.seconds = 0.0
            seconds = load.step()
            if counts:
                steps.append((seconds, timer.seconds, load.loop.scheduler.num_running))
        steps = steps[2:]
        total, inside = (statistics.median(step[k] for step in steps) for k in (0, 1))
        outside = statistics.median(step[0] - step[1] for step in steps)
        share = statistics.median((step[0] - step[1]) / step[0] for step in steps)
        rows.append(
            {
                "sampling": kind,
                "step_ms": total * 1e3,
                "model_ms": inside * 1e3,
                "outside_ms": outside * 1e3,
                "share": share,
            }
        )
    return rows


def linear_rows(steps: int) -> list[dict[str, float]]:
    """The instant model: microseconds per step and per running request."""
    rows = []
    for running in RUNNING:
        config = EngineConfig(
            model="instant",
            num_kv_blocks=(running + 1) * (PROMPT_TOKENS + OUTPUT_TOKENS),
            max_num_seqs=running,
            max_num_batched_tokens=running + 512,
            max_waiting=2 * running + 16,
            latency_model="none",
        )
        prompts = [[(7 * i + j) % 97 for j in range(PROMPT_TOKENS)] for i in range(64)]
        load = Load(build_loop(config, InstantModel(512, running)), running, {"temperature": 0.0}, prompts)  # type: ignore[arg-type]
        for _ in range(OUTPUT_TOKENS):
            load.step()
        calm_collector()  # as the engine process does
        median = statistics.median(load.step() for _ in range(steps))
        rows.append({"running": running, "step_us": median * 1e6, "us_per_request": median * 1e6 / running})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="checkpoint; without one only the second table")
    parser.add_argument("--quantize", default="int8", choices=["none", "int8", "int4"])
    parser.add_argument("--running", type=int, default=64)
    parser.add_argument("--steps", type=int, default=30, help="of each kind that count")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console()
    figures: dict[str, Any] = {"threads": options.threads, "running": options.running}

    table = Table(title="whole engine loop, model that answers at once")
    for column in ("running", "us per step", "us per running request"):
        table.add_column(column, justify="right")
    figures["linear"] = linear_rows(5 * options.steps)
    for row in figures["linear"]:
        table.add_row(f"{row['running']:.0f}", f"{row['step_us']:.0f}", f"{row['us_per_request']:.1f}")
    console.print(table)

    if options.model is not None:
        from foveal.models.loading import load_model, load_processor

        model = load_model(options.model, quantize=None if options.quantize == "none" else options.quantize)
        tokenizer = load_processor(options.model).tokenizer
        prompts = [
            tokenizer(SENTENCE.format(i) * 8, add_special_tokens=False)["input_ids"][:PROMPT_TOKENS] for i in range(64)
        ]
        figures["share"] = share_rows(model, prompts, options)
        table = Table(title=f"{options.running} requests, {options.quantize}, {options.threads} thread(s)")
        for column in ("sampling", "step ms", "model ms", "outside ms", "outside"):
            table.add_column(column, justify="left" if column == "sampling" else "right")
        for row in figures["share"]:
            times = (f"{row[name]:.2f}" for name in ("step_ms", "model_ms", "outside_ms"))
            table.add_row(row["sampling"], *times, f"{row['share']:.1%}")
        console.print(table)
    if not options.no_write:
        print("written to", write_result("scheduler_cost", figures))


if __name__ == "__main__":
    main()
