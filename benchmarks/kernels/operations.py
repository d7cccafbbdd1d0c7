"""The native operations beside the products: bytes per second as a fraction of the bandwidth read in the same round.

What an operation must read and write at least counts, and lies in more memory than the last cache holds. Operations that
compute more than they read stay below the bandwidth: their rate says how far.

    python benchmarks/kernels/operations.py --threads 2
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from roofline import bandwidth, packed, seconds

sys.path.insert(0, str(Path(__file__).parents[1]))
from harness.record import write_result

from foveal.engine.execution.sampling.draw import HEAD_WINDOW, MAX_HEAD
from foveal.kernels.attention_batch import AttentionBatch, KVCache
from foveal.kernels.native.extension import require_native
from foveal.kernels.native.kv_pool import NativePool, step_arrays
from foveal.kernels.row_draw import RowFilters, draw_rows

WIDTH, VOCAB, HEADS, KV_HEADS, HEAD_DIM = 896, 49_152, 14, 2, 64
"""Of the peers' Llama of 0.4 billion parameters."""


@dataclass(frozen=True)
class Case:
    name: str
    call: Callable[[], object]
    num_bytes: int
    operations: int = 0
    """Multiplications and additions, where they are the limit."""
    threaded: bool = True


def sampling(name: str, temperature: float, top_k: int, top_p: float, logits: np.ndarray, threads: int) -> Case:
    rows, vocab = logits.shape
    generator = np.random.default_rng(0)
    filters = RowFilters(
        np.full(rows, temperature, dtype=np.float32),
        np.full(rows, top_k, dtype=np.int32),
        np.full(rows, top_p),
        np.zeros(rows),
    )
    keys = generator.integers(0, 2**32, (rows, 2), dtype=np.uint32) | 1
    hashed_ids = generator.integers(0, 2**32, vocab + 2, dtype=np.uint32)
    counts = np.ones(rows, dtype=np.int32)
    return Case(
        f"draw {name}, {rows} rows of {vocab:,}",
        lambda: draw_rows(
            logits, filters, keys, counts, hashed_ids, window=HEAD_WINDOW, most=MAX_HEAD, threads=threads
        ),
        logits.nbytes,
    )


def attention(name: str, requests: list[tuple[int, int]], dtype: str, threads: int) -> Case:
    """(cached tokens, new tokens) of each request."""
    lengths = [cached + new for cached, new in requests]
    starts = np.cumsum([0, *lengths]).tolist()
    shape = (1, starts[-1] + 1, KV_HEADS, HEAD_DIM)  # one more for padding
    if dtype == "int8":
        codes = [torch.randint(-127, 128, shape, dtype=torch.int8) for _ in range(2)]
        scales = [torch.full(shape[:3], 0.02) for _ in range(2)]
        cache = KVCache(codes[0], codes[1], 1, scales[0], scales[1])
    else:
        cache = KVCache(*(torch.randn(shape).to(getattr(torch, dtype)) for _ in range(2)), 1)
    tables = torch.zeros(len(requests), max(lengths), dtype=torch.int64)
    for row, length in enumerate(lengths):
        tables[row, :length] = torch.arange(starts[row], starts[row] + length)
    slots = torch.cat([tables[row, cached : cached + new] for row, (cached, new) in enumerate(requests)])
    q_starts = np.cumsum([0, *(new for _, new in requests)]).tolist()
    arrays = step_arrays(AttentionBatch(slots, tables, q_starts, lengths))
    query, key, value = (torch.randn(len(slots), heads, HEAD_DIM).numpy() for heads in (HEADS, KV_HEADS, KV_HEADS))
    out, pool = np.empty_like(query), NativePool().of(cache)
    pairs = sum(new * cached + new * (new + 1) // 2 for cached, new in requests)
    return Case(
        f"attention, {name}, {dtype} keys",
        lambda: require_native().paged_attention(pool, 0, query, key, value, *arrays, 0, out, threads),
        sum(tensor.nbytes for tensor in cache.tensors),
        4 * HEADS * HEAD_DIM * pairs,
    )


def cases(threads: int) -> list[Case]:
    kernels = require_native()
    # Some hundreds of tokens within the window, as a language model has.
    logits = 4 * torch.randn(64, VOCAB, generator=torch.Generator().manual_seed(0)).numpy()
    x = torch.randn(32_768, WIDTH).numpy()
    y, weight = np.empty_like(x), np.ones(WIDTH, dtype=np.float32)
    groups = len(x) * WIDTH // 32
    codes = np.empty(x.shape, dtype=np.int8)
    scales, seeds, sums = (np.empty(groups, dtype=kind) for kind in (np.float32, np.int32, np.float32))
    matrix = packed("int8", VOCAB, WIDTH)
    ids = np.random.default_rng(0).permutation(VOCAB)[: len(x)].astype(np.int64)
    return [
        attention("16 requests of 4,096 decode", [(4095, 1)] * 16, "float16", threads),
        attention("16 requests of 4,096 decode", [(4095, 1)] * 16, "int8", threads),
        attention("a prompt of 2,048", [(0, 2048)], "float16", threads),
        sampling("top-p 0.9", 0.7, 0, 0.9, logits, threads),
        sampling("top-k 40", 1.0, 40, 1.0, logits, threads),
        sampling("of all", 1.0, 0, 1.0, logits, threads),
        Case(f"RMSNorm, {WIDTH} wide", lambda: kernels.rms_norm(x, weight, 1e-5, y), 2 * x.nbytes, threaded=False),
        Case(
            f"to int8, {WIDTH} wide",
            lambda: kernels.quantise_rows(x, 0, codes, scales, seeds, sums),
            x.nbytes + codes.nbytes + scales.nbytes + seeds.nbytes + sums.nbytes,
            threaded=False,
        ),
        Case(
            f"gather int8 rows, {WIDTH} wide",
            lambda: kernels.gather_rows(matrix.handle, ids, y),
            len(ids) * matrix.num_bytes // VOCAB + y.nbytes,
            threaded=False,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    words = np.ones(96 << 17, dtype=np.uint64)
    table = Table(
        title=f"{options.threads} thread(s) (* one), medians of {options.rounds} rounds, "
        f"{require_native().instruction_set()}"
    )
    for column in ("", "us", "GB/s", "of bandwidth", "GOP/s"):
        table.add_column(column, justify="right" if column else "left")
    figures = []
    for case in cases(options.threads):
        case.call()
        times, fractions = [], []
        for _ in range(options.rounds):
            reading = bandwidth(words, options.threads if case.threaded else 1)
            times.append(seconds(case.call, 3))
            fractions.append(case.num_bytes / times[-1] / 1e9 / reading)
        taken, fraction = statistics.median(times), statistics.median(fractions)
        rate, operations = case.num_bytes / taken / 1e9, case.operations / taken / 1e9
        name = case.name + ("" if case.threaded else " *")
        table.add_row(
            name, f"{taken * 1e6:,.0f}", f"{rate:.1f}", f"{fraction:.0%}", f"{operations:.0f}" if operations else ""
        )
        figures.append(
            {
                "operation": case.name, "threads": options.threads if case.threaded else 1, "us": taken * 1e6,
                "gb_per_s": rate, "fraction_of_bandwidth": fraction, "gop_per_s": operations or None,
            }
        )  # fmt: skip
    Console().print(table)
    if not options.no_write:
        print("written to", write_result("kernel_operations", {"rows": figures}))


if __name__ == "__main__":
    main()
