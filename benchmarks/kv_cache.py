"""What the KV cache is worth (mission row B5): the same answers with it and with everything recomputed for each token.

python benchmarks/kv_cache.py --model .demo/foveal-demo
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))
from harness.record import write_result

from foveal.core.clock import MonotonicClock
from foveal.core.sampling_params import SamplingParams
from foveal.engine.build import build_loop
from foveal.engine.config import EngineConfig
from foveal.engine.loop import EngineLoop
from foveal.engine.scheduling.request import Request
from foveal.models.image_input import PromptInput
from foveal.models.loading import load_model, load_processor

PROMPT = "Write a long story about a lighthouse, a storm and the people who live by the sea."


def generate(loop: EngineLoop, token_ids: list[int], new_tokens: int) -> tuple[float, list[int]]:
    request = Request(
        request_id="r",
        prompt_token_ids=list(token_ids),
        sampling=SamplingParams(max_tokens=new_tokens, temperature=0.0, ignore_eos=True),
        arrival_s=0.0,
    )
    loop.add(request, PromptInput(request.prompt_token_ids))
    started = time.perf_counter()
    while loop.has_work:
        loop.step()
    return time.perf_counter() - started, request.output_token_ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    processor, model = load_processor(options.model), load_model(options.model, dtype="float32")
    token_ids = processor.prepare(processor.apply_chat_template([{"role": "user", "content": PROMPT}])).token_ids
    loops = {
        "with KV cache": build_loop(config(options.model, True), model, clock=MonotonicClock()),
        "without": build_loop(config(options.model, False), model, clock=MonotonicClock()),
    }
    for loop in loops.values():
        loop.warm_up()
    table = Table(title=f"{Path(options.model).name}, float32, one request, medians of {options.rounds} rounds")
    for column in ("new tokens", "with KV cache, tok/s", "without, tok/s", "ratio", "same tokens"):
        table.add_column(column, justify="right")
    figures: list[dict[str, Any]] = []
    for new_tokens in (16, 64, 128):
        seconds: dict[str, list[float]] = {name: [] for name in loops}
        answers = {}
        for _ in range(options.rounds):
            for name, loop in loops.items():
                elapsed, answers[name] = generate(loop, token_ids, new_tokens)
                seconds[name].append(elapsed)
        rate = {name: new_tokens / statistics.median(times) for name, times in seconds.items()}
        same = answers["with KV cache"] == answers["without"]
        ratio = rate["with KV cache"] / rate["without"]
        figures.append({"new_tokens": new_tokens, "tokens_per_s": rate, "ratio": ratio, "same_tokens": same})
        table.add_row(
            str(new_tokens), f"{rate['with KV cache']:.1f}", f"{rate['without']:.1f}", f"{ratio:.1f}", str(same)
        )
    Console().print(table)
    print("written to", write_result("kv_cache", {"prompt_tokens": len(token_ids), "rows": figures}))


def config(model: str, kv_cache: bool) -> EngineConfig:
    return EngineConfig(model=model, num_kv_blocks=256, kv_cache=kv_cache, enable_prefix_caching=False)


if __name__ == "__main__":
    main()
