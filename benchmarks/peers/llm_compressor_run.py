"""One compression by llm-compressor. Runs in the peer's environment, which has no foveal; see README.md.

PEER_PYTHON benchmarks/peers/llm_compressor_run.py --model DIR --samples samples.json --method gptq --out DIR
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Read when llm-compressor is imported, which is why they stand before its import.
os.environ.setdefault("LLM_COMPRESSOR_LOG_LEVEL", "WARNING")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.pipelines.cache import IntermediatesCache
from transformers import AutoModelForCausalLM, AutoTokenizer


def recipe(method: str, bits: int, group: int) -> list[Any]:
    """Symmetric integer weights in groups for every linear but the head; everything else is the peer's default."""
    weights = {"num_bits": bits, "type": "int", "symmetric": True, "strategy": "group", "group_size": group}
    where = {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}, "ignore": ["lm_head"]}
    if method == "gptq":
        return [GPTQModifier(**where)]
    if method == "awq":
        return [AWQModifier(), QuantizationModifier(**where)]
    return [QuantizationModifier(**where)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--samples", type=Path, required=True, help="JSON with `calibration`: lists of token ids")
    parser.add_argument("--method", choices=("gptq", "awq", "rtn"), required=True)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not torch.accelerator.is_available():
        # AWQModifier pins its cached activations for a GPU and fails where there is none.
        IntermediatesCache.pin_memory = lambda cache, batch: None
    ids = json.loads(options.samples.read_text())["calibration"]
    rows = {"input_ids": ids, "attention_mask": [[1] * len(one) for one in ids]}
    started, processor_started = time.perf_counter(), time.process_time()
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    oneshot(
        model=model,
        processor=tokenizer,
        dataset=Dataset.from_dict(rows),
        recipe=recipe(options.method, options.bits, options.group),
        num_calibration_samples=len(ids),
        max_seq_length=max(map(len, ids)),
        shuffle_calibration_samples=False,
    )
    seconds, processor_seconds = time.perf_counter() - started, time.process_time() - processor_started
    saving = time.perf_counter()
    model.save_pretrained(options.out, save_compressed=True)
    report = {
        "seconds": round(seconds, 2),
        "processor_seconds": round(processor_seconds, 2),
        "saving_seconds": round(time.perf_counter() - saving, 2),
        "versions": {name: version(name) for name in ("llmcompressor", "compressed-tensors", "transformers", "torch")},
    }
    sys.stdout.write("\n" + json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
