"""How near the native products come to what the machine allows.

For every shape, kind of weight and number of rows: microseconds, bytes of weights per second as a fraction of the read
bandwidth measured in the same round, and operations per second. Weights are cycled through copies larger than the last
cache, as in a decoder that reads every layer once per step.

python benchmarks/kernels/roofline.py --threads 2
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))
from harness.record import write_result

from foveal.kernels.native.extension import require_native
from foveal.kernels.native.linear import NativeLinear
from foveal.kernels.native.packed_matrix import NativeMatrix, pack_dense, pack_quantised
from foveal.kernels.quantisation.affine import quantise
from foveal.kernels.quantisation.scheme import parse_weight

KINDS = ("int8", "int4-g32", "bfloat16", "float32")


def packed(kind: str, out_features: int, in_features: int) -> NativeMatrix:
    weight = torch.randn(out_features, in_features)
    if kind in ("float32", "bfloat16"):
        return pack_dense(weight.to(getattr(torch, kind)))
    return pack_quantised(quantise(weight, parse_weight(kind)))


def bandwidth(words: np.ndarray, threads: int) -> float:
    """GB/s of one pass over `words`."""
    started = time.perf_counter()
    require_native().read_all(words, threads)
    return words.nbytes / (time.perf_counter() - started) / 1e9


def seconds(call: Callable[[], Any], repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - started) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--shapes", nargs="+", default=["576x3072", "1536x576", "896x9728"], help="IN x OUT")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resident-mib", type=int, default=96, help="weights that are cycled through")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    words = np.ones(options.resident_mib << 17, dtype=np.uint64)

    table = Table(
        title=f"{options.threads} thread(s), medians of {options.rounds} rounds, {require_native().instruction_set()}",
    )
    for column in ("in -> out", "weights", "rows", "us", "GB/s", "of bandwidth", "GOP/s"):
        table.add_column(column, justify="right")
    figures: list[dict[str, Any]] = []
    for shape in options.shapes:
        in_features, out_features = (int(part) for part in shape.split("x"))
        for kind in options.kinds:
            first = packed(kind, out_features, in_features)
            copies = max(1, (options.resident_mib << 20) // first.num_bytes)
            linears = [NativeLinear(first)] + [
                NativeLinear(packed(kind, out_features, in_features)) for _ in range(copies - 1)
            ]
            for rows in options.rows:
                x = torch.randn(rows, in_features)
                repeats = max(1, 16 // rows)
                times, fractions = [], []
                for _ in range(options.rounds):
                    reading = bandwidth(words, options.threads)
                    taken = seconds(lambda: [linear(x) for linear in linears[: max(4, copies // rows)]], repeats)
                    taken /= len(linears[: max(4, copies // rows)])
                    times.append(taken)
                    fractions.append(first.num_bytes / taken / 1e9 / reading)
                taken, fraction = statistics.median(times), statistics.median(fractions)
                rate = first.num_bytes / taken / 1e9
                operations = 2 * rows * in_features * out_features / taken / 1e9
                cells = (f"{taken * 1e6:.0f}", f"{rate:.1f}", f"{fraction:.0%}", f"{operations:.0f}")
                table.add_row(f"{in_features} -> {out_features}", kind, str(rows), *cells)
                figures.append(
                    {
                        "in": in_features, "out": out_features, "weights": kind, "rows": rows, "us": taken * 1e6,
                        "gb_per_s": rate, "fraction_of_bandwidth": fraction, "gop_per_s": operations,
                    }
                )  # fmt: skip
    Console().print(table)
    if not options.no_write:
        print("written to", write_result("kernel_roofline", {"threads": options.threads, "rows": figures}))


if __name__ == "__main__":
    main()
