"""Point 6 of the list of speed: an INT8 KV cache holds at least 1.8x the tokens of a 16-bit one in the same memory.

    python benchmarks/acceptance/speed_06_kv.py --model .demo/foveal-demo

Two engines get the same bytes for their pools and more requests than fit; counted is what they hold at once.
"""

from __future__ import annotations

import argparse
from typing import Any

import harness_path  # noqa: F401 - finds `harness`
import torch
from harness.record import write_result

from foveal.core.sampling_params import SamplingParams
from foveal.engine.build import build_loop
from foveal.engine.config import EngineConfig
from foveal.engine.execution.kv_pool import blocks_that_fit
from foveal.engine.scheduling.request import Request
from foveal.models.image_input import PromptInput
from foveal.models.loading import load_model

LEAST_RATIO = 1.8
PROMPT_TOKENS, NEW_TOKENS, LENGTH, REQUESTS = 16, 2, 128, 96


def held(model: str, name: str, pool_bytes: int) -> dict[str, Any]:
    """Tokens in the pool when no further request fits, and the bytes of its tensors."""
    quantised = name == "int8"
    loaded = load_model(
        model,
        dtype="float32" if quantised else "bfloat16",
        decoder="native" if quantised else "fused",
        quantize="int8" if quantised else None,
    )
    config = EngineConfig(
        model=model,
        kv_dtype="int8" if quantised else "auto",
        max_num_seqs=256,
        max_model_len=LENGTH,
        max_num_batched_tokens=PROMPT_TOKENS * REQUESTS,
        enable_prefix_caching=False,
        num_kv_blocks=blocks_that_fit(
            loaded.spec,
            kv_dtype=torch.int8 if quantised else torch.bfloat16,
            block_size=2,
            max_num_seqs=10_000,
            max_model_len=LENGTH,
            memory_utilization=0.95,
            free_bytes=int(pool_bytes / 0.95),
        ),
    )
    loop = build_loop(config, loaded)
    for number in range(REQUESTS):
        prompt = [5 + (number * 131 + k) % 40_000 for k in range(PROMPT_TOKENS)]
        sampling = SamplingParams(max_tokens=NEW_TOKENS, temperature=0.0, ignore_eos=True)
        loop.add(Request(f"kv-{number}", prompt, sampling, arrival_s=0.0), PromptInput(prompt))
    # One step admits and computes the prompts that fit; the next one's tokens fill what is left.
    most = 0
    for _ in range(NEW_TOKENS):
        loop.step()
        most = max(most, loop.stats().kv_blocks_used * config.block_size)
    if not loop.stats().num_waiting:
        raise SystemExit(f"{name}: all {REQUESTS} requests fit; lower --pool-mib")
    pool = loop.runner.kv_cache
    return {"tokens": most, "pool_bytes": pool.nbytes, "capacity": pool.num_blocks * pool.block_size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--pool-mib", type=int, default=12)
    options = parser.parse_args()
    found = {name: held(options.model, name, options.pool_mib << 20) for name in ("16 bit", "int8")}
    ratio = found["int8"]["tokens"] / found["16 bit"]["tokens"]
    for name, figures in found.items():
        print(f"{name}: {figures['tokens']:,} tokens held in {figures['pool_bytes']:,} bytes")
    fair = found["int8"]["pool_bytes"] <= 1.01 * found["16 bit"]["pool_bytes"]
    passed = ratio >= LEAST_RATIO and fair
    print("PASS" if passed else "FAIL", f"INT8 holds {ratio:.2f}x the tokens of 16 bits, at least {LEAST_RATIO}")
    print("written to", write_result("acceptance_speed_06_kv", {**found, "ratio": ratio}))
    if not passed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
