"""One compression by Foveal, on the samples and in the number format of llm_compressor_run.py.

python benchmarks/peers/foveal_run.py --model DIR --samples samples.json --method gptq --work DIR --out DIR
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from text_samples import TextSamples

from foveal.compression.compressor import compress
from foveal.compression.formats.writer import write_checkpoint
from foveal.compression.recipe import Recipe
from foveal.compression.recipe_reader import recipe_from

_OPTIONS = {
    "gptq": {"damping": 0.01, "act_order": True, "observer": "mse"},
    "awq": {"grid": 20, "clip": True},
    "rtn": {},
}


def text_recipe(method: str, bits: int, group: int) -> Recipe:
    """Symmetric integers in groups for every linear of the layers; embedding and head stay."""
    return recipe_from(
        {
            "rules": [
                {
                    "component": ["attention", "ffn"],
                    "method": method,
                    "scheme": f"int{bits}-g{group}",
                    "options": _OPTIONS[method],
                    "reason": "the same format as the peer's",
                }
            ],
            "objective": {"modality_weight": 1.0},
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--samples", type=Path, required=True, help="file of TextSamples.write")
    parser.add_argument("--method", choices=tuple(_OPTIONS), required=True)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, required=True, help="for finished blocks; emptied first")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shutil.rmtree(options.work, ignore_errors=True)
    calibration = TextSamples.read(options.samples).calibration_set()
    recipe = text_recipe(options.method, options.bits, options.group)
    started, processor_started = time.perf_counter(), time.process_time()
    result = compress(options.model, recipe, calibration, options.work)
    seconds, processor_seconds = time.perf_counter() - started, time.process_time() - processor_started
    saving = time.perf_counter()
    write_checkpoint(options.model, options.out, result.weights, result.schemes, result.replaced)
    report = {
        "seconds": round(seconds, 2),
        "processor_seconds": round(processor_seconds, 2),
        "saving_seconds": round(time.perf_counter() - saving, 2),
        "linears_by_method": dict(Counter(record.method or "kept" for record in result.linears.values())),
    }
    sys.stdout.write("\n" + json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
