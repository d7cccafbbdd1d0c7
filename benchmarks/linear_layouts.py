"""Why DenseLinear multiplies a few float32 rows with the weight on the left.

Times `F.linear` against the transposed product, in turns, for the matrices of the demo model. Weights are cycled through
copies larger than the last cache, as in a decoder that reads every layer once per step.

python benchmarks/linear_layouts.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))
from harness.record import write_result

from foveal.models.linears import MAX_TRANSPOSED_ROWS, MIN_TRANSPOSED_ROWS

Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def plain(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.linear(x, weight)


def transposed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.mm(weight, x.t().contiguous()).t().contiguous()


PRODUCTS: dict[str, Product] = {"plain": plain, "transposed": transposed}


def measure(in_features: int, out_features: int, num_rows: int, rounds: int, resident_mib: int) -> dict[str, float]:
    """Median microseconds per product of each layout."""
    copies = max(1, resident_mib * 2**20 // (4 * in_features * out_features))
    weights = [torch.randn(out_features, in_features) for _ in range(copies)]
    x = torch.randn(num_rows, in_features)
    samples: dict[str, list[float]] = {name: [] for name in PRODUCTS}
    for number in range(rounds + 2):
        for name, product in PRODUCTS.items():
            started = time.perf_counter()
            for weight in weights:
                product(x, weight)
            if number >= 2:
                samples[name].append((time.perf_counter() - started) / copies * 1e6)
    return {name: statistics.median(times) for name, times in samples.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 3, 4, 8, 16, 32, 48, 64, 96, 128])
    parser.add_argument("--shapes", nargs="+", default=["576x960", "576x576", "576x3072", "1536x576"], help="IN x OUT")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resident-mib", type=int, default=192, help="weights that are cycled through")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    table = Table(title=f"float32, {options.threads} thread(s), us per product, medians of {options.rounds} rounds")
    for column in ("in -> out", "rows", "plain", "transposed", "plain / transposed", "DenseLinear takes"):
        table.add_column(column, justify="right")
    figures: list[dict[str, Any]] = []
    for shape in options.shapes:
        in_features, out_features = (int(part) for part in shape.split("x"))
        for num_rows in options.rows:
            us = measure(in_features, out_features, num_rows, options.rounds, options.resident_mib)
            ratio = us["plain"] / us["transposed"]
            taken = "transposed" if MIN_TRANSPOSED_ROWS <= num_rows <= MAX_TRANSPOSED_ROWS else "plain"
            figures.append({"in": in_features, "out": out_features, "rows": num_rows, "us": us, "taken": taken})
            cells = (f"{us['plain']:.0f}", f"{us['transposed']:.0f}", f"{ratio:.2f}", taken)
            table.add_row(f"{in_features} -> {out_features}", str(num_rows), *cells)
    Console().print(table)
    if not options.no_write:
        print("written to", write_result("linear_layouts", {"threads": options.threads, "rows": figures}))


if __name__ == "__main__":
    main()
