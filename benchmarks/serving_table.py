"""The serving table: transformers one by one and in static batches, ours static and continuous, on one model in one run.

    python benchmarks/serving_table.py --model .demo/foveal-demo

Each client sends its next request when its last one is answered. A request is one picture (all different) and a question,
answered with a fixed number of tokens. Systems are interleaved within a round; figures are medians over rounds. All run in
float32 on the same threads.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))
from harness.record import write_result

from foveal.core.sampling_params import SamplingParams
from foveal.engine.api import GenerationRequest
from foveal.engine.async_engine import AsyncEngine
from foveal.engine.config import EngineConfig

CONCURRENCIES = (1, 4, 16)
QUESTION = "How many shapes are there?"


@dataclass(frozen=True)
class Sample:
    """One request: time to first token, whole time, seconds; and its tokens."""

    ttft_s: float
    e2e_s: float
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Figures:
    ttft_p50_ms: float
    ttft_p95_ms: float
    tokens_per_s: float
    requests_per_s: float


def summarise(samples: Sequence[Sample], wall_s: float) -> Figures:
    ttft = sorted(s.ttft_s * 1e3 for s in samples)
    return Figures(
        ttft_p50_ms=statistics.median(ttft),
        ttft_p95_ms=ttft[min(len(ttft) - 1, int(0.95 * len(ttft)))],
        tokens_per_s=sum(len(s.token_ids) for s in samples) / wall_s,
        requests_per_s=len(samples) / wall_s,
    )


def pictures(count: int, seed: int) -> list[bytes]:
    """Different pictures of coloured blocks, PNG, 224 x 224."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        small = generator.integers(0, 256, (7, 7, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(small).resize((224, 224), Image.Resampling.NEAREST).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


class HuggingFace:
    """`generate` of plain transformers, its own processor included in the time."""

    def __init__(self, path: str, new_tokens: int) -> None:
        self.processor = transformers.AutoProcessor.from_pretrained(path)
        self.processor.tokenizer.padding_side = "left"
        self.model = transformers.AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).eval()
        self.new_tokens = new_tokens
        self._lock = threading.Lock()

    def answer(self, batch: Sequence[bytes], asked_s: Sequence[float]) -> list[Sample]:
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
        text = self.processor.apply_chat_template(messages, add_generation_prompt=True)
        first: list[float] = []

        def note_time(ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
            if not first:
                first.append(time.perf_counter())
            return torch.zeros(len(ids), dtype=torch.bool)

        with self._lock, torch.inference_mode():
            images = [Image.open(io.BytesIO(data)).convert("RGB") for data in batch]
            inputs = self.processor(images=images, text=[text] * len(batch), return_tensors="pt", padding=True)
            output = self.model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=self.new_tokens,
                min_new_tokens=self.new_tokens,
                stopping_criteria=[note_time],
            )
        ended = time.perf_counter()
        tokens = output[:, inputs["input_ids"].shape[1] :].tolist()
        return [Sample(first[0] - t, ended - t, tuple(ids)) for t, ids in zip(asked_s, tokens, strict=True)]

    def one_by_one(self, images: Sequence[bytes], concurrency: int) -> tuple[list[Sample], float]:
        started = time.perf_counter()
        with ThreadPoolExecutor(concurrency) as clients:
            samples = list(clients.map(lambda data: self.answer([data], [time.perf_counter()])[0], images))
        return samples, time.perf_counter() - started

    def static_batch(self, images: Sequence[bytes], concurrency: int) -> tuple[list[Sample], float]:
        started = time.perf_counter()
        samples: list[Sample] = []
        for at in range(0, len(images), concurrency):
            batch = images[at : at + concurrency]
            samples += self.answer(batch, [time.perf_counter()] * len(batch))
        return samples, time.perf_counter() - started


async def closed_loop(
    engine: AsyncEngine, images: Sequence[bytes], concurrency: int, new_tokens: int
) -> tuple[list[Sample], float]:
    waiting = list(enumerate(images))[::-1]
    samples: dict[int, Sample] = {}
    # As transformers' min_new_tokens: the end token is masked until the length is reached.
    sampling = SamplingParams(max_tokens=new_tokens, min_tokens=new_tokens, temperature=0.0)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]

    async def client() -> None:
        while waiting:
            number, data = waiting.pop()
            asked = time.perf_counter()
            first, tokens = 0.0, []
            request = GenerationRequest(f"{id(waiting)}-{number}", sampling, messages=messages, images=[data])
            async for output in engine.generate(request):
                first = first or time.perf_counter()
                tokens += [t for delta in output.deltas for t in delta.token_ids]
            samples[number] = Sample(first - asked, time.perf_counter() - asked, tuple(tokens))

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(concurrency)))
    return [samples[k] for k in sorted(samples)], time.perf_counter() - started


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--requests", type=int, default=2, help="requests per client and round (at least 4 in all)")
    options = parser.parse_args()
    console = Console()
    transformers.logging.set_verbosity_error()
    hf = HuggingFace(options.model, options.new_tokens)
    base: dict[str, Any] = {"model": options.model, "dtype": "float32", "max_num_seqs": 16}
    runs: dict[tuple[str, int], list[Figures]] = {}
    repeats: list[tuple[float, float]] = []
    agreement: dict[str, list[bool]] = {}

    def note(name: str, concurrency: int, result: tuple[list[Sample], float], reference: list[Sample]) -> None:
        samples, wall_s = result
        figures = summarise(samples, wall_s)
        runs.setdefault((name, concurrency), []).append(figures)
        agreement.setdefault(name, []).extend(
            a.token_ids == b.token_ids for a, b in zip(samples, reference, strict=True)
        )
        console.print(
            f"  {name:18} c={concurrency:<2} {figures.tokens_per_s:7.1f} tok/s  TTFT p50 {figures.ttft_p50_ms:7.0f} ms"
        )

    async with (
        AsyncEngine(EngineConfig(**base)) as continuous,
        AsyncEngine(EngineConfig(**base, batching="static", enable_prefix_caching=False)) as static,
    ):
        hf.one_by_one(pictures(1, 999), 1)
        for engine in (continuous, static):
            await closed_loop(engine, pictures(2, 998), 2, options.new_tokens)
        for round_number in range(options.rounds):
            for c in CONCURRENCIES:
                console.print(f"round {round_number + 1}, concurrency {c}")
                images = pictures(max(4, c * options.requests), seed=100 * round_number + c)
                systems: list[tuple[str, Callable[[], Any]]] = [
                    ("HF one by one", lambda: asyncio.to_thread(hf.one_by_one, images, c)),
                    ("HF static batch", lambda: asyncio.to_thread(hf.static_batch, images, c)),
                    ("Foveal static", lambda: closed_loop(static, images, c, options.new_tokens)),
                    ("Foveal continuous", lambda: closed_loop(continuous, images, c, options.new_tokens)),
                ]
                reference: list[Sample] = []
                for name, run in systems:
                    result = await run()
                    reference = reference or result[0]
                    note(name, c, result, reference)
            (data,) = pictures(1, 5000 + round_number)
            first = (await closed_loop(continuous, [data], 1, 4))[0][0].ttft_s
            repeats.append((first, (await closed_loop(continuous, [data], 1, 4))[0][0].ttft_s))
    report(console, runs, repeats, agreement, options)


def report(
    console: Console,
    runs: dict[tuple[str, int], list[Figures]],
    repeats: list[tuple[float, float]],
    agreement: dict[str, list[bool]],
    options: argparse.Namespace,
) -> None:
    table = Table(
        title=f"{Path(options.model).name}, float32, {options.new_tokens} new tokens, medians of {options.rounds} rounds"
    )
    for column in ("system", "concurrency", "TTFT p50 ms", "TTFT p95 ms", "tok/s", "req/s", "x HF one by one"):
        table.add_column(column, justify="left" if column == "system" else "right")
    rows = []
    for c in CONCURRENCIES:
        baseline = statistics.median(f.tokens_per_s for f in runs["HF one by one", c])
        for (name, concurrency), figures in runs.items():
            if concurrency != c:
                continue
            median = Figures(
                *(statistics.median(getattr(f, key) for f in figures) for key in Figures.__dataclass_fields__)
            )
            ratio = median.tokens_per_s / baseline
            rows.append({"system": name, "concurrency": c, **asdict(median), "ratio": ratio})
            table.add_row(
                name,
                str(c),
                f"{median.ttft_p50_ms:.0f}",
                f"{median.ttft_p95_ms:.0f}",
                f"{median.tokens_per_s:.1f}",
                f"{median.requests_per_s:.2f}",
                f"{ratio:.2f}",
            )
    console.print(table)
    first, again = (statistics.median(r[k] for r in repeats) * 1e3 for k in (0, 1))
    console.print(f"same picture again: TTFT {first:.0f} ms -> {again:.0f} ms ({again / first:.2f} of the first)")
    same = {name: sum(found) / len(found) for name, found in agreement.items()}
    console.print("answers equal to HF one by one:", {name: f"{share:.1%}" for name, share in same.items()})
    path = write_result(
        "serving_table",
        {
            "model": Path(options.model).name,
            "new_tokens": options.new_tokens,
            "rounds": options.rounds,
            "rows": rows,
            "repeated_image": {"first_ttft_ms": first, "again_ttft_ms": again, "ratio": again / first},
            "answers_equal_to_hf": same,
        },
    )
    console.print(f"written to {path}")


if __name__ == "__main__":
    asyncio.run(main())
