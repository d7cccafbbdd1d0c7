"""Encoding images of mixed sizes on a dynamic-resolution tower: transformers' loop over segments or our buckets.

A Qwen2.5-VL tower with random weights and window attention. Both attentions, each with one image per call and with the
batches of `batch_images`; the features must agree.

python benchmarks/vision_batching.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

sys.path.insert(0, str(Path(__file__).parent))
from harness.record import write_result

from foveal.kernels.length_groups import group_by_length
from foveal.models.attention_interface import use_varlen_attention
from foveal.models.image_input import ImageInput
from foveal.models.vision_batching import batch_images

PATCH, MERGE, WINDOW = 14, 2, 112


def build_tower(hidden: int, depth: int) -> torch.nn.Module:
    """One layer in four sees the whole image, the others windows of 112 pixels, as in the released checkpoints."""
    config = Qwen2_5_VLVisionConfig(
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_heads=max(1, hidden // 64),
        depth=depth,
        out_hidden_size=hidden,
        patch_size=PATCH,
        spatial_merge_size=MERGE,
        window_size=WINDOW,
        fullatt_block_indexes=list(range(3, depth, 4)) or [depth - 1],
    )
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    return Qwen2_5_VisionTransformerPretrainedModel(config).eval()


def make_images(count: int, sides: Sequence[int], seed: int = 0) -> list[ImageInput]:
    """Random patches of `count` images whose width and height are drawn from `sides` (pixels)."""
    generator = np.random.default_rng(seed)
    unit = PATCH * MERGE
    images = []
    for _ in range(count):
        height, width = (round(int(side) / unit) * MERGE for side in generator.choice(sides, 2))
        pixels = generator.standard_normal((height * width, 3 * 2 * PATCH * PATCH), dtype=np.float32)
        arrays = {"pixel_values": pixels, "image_grid_thw": np.array([1, height, width])}
        images.append(ImageInput(arrays, height * width // MERGE**2, height * width, b""))
    return images


@torch.inference_mode()
def encode(tower: torch.nn.Module, images: Sequence[ImageInput], batches: Sequence[Sequence[int]]) -> torch.Tensor:
    """Features of all images, in order."""
    parts: dict[int, torch.Tensor] = {}
    for batch in batches:
        chosen = [images[index] for index in batch]
        pixels = torch.from_numpy(np.concatenate([image.arrays["pixel_values"] for image in chosen]))
        grids = torch.from_numpy(np.stack([image.arrays["image_grid_thw"] for image in chosen]))
        features = tower(pixels, grid_thw=grids, return_dict=True).pooler_output
        parts.update(zip(batch, features.split([image.num_tokens for image in chosen]), strict=True))
    return torch.cat([parts[index] for index in range(len(images))])


def padding(segments: Sequence[int]) -> float:
    """Fraction of the attention's cells that is padding when `segments` share a call."""
    cells = sum(group.padded_length * len(group.members) for group in group_by_length(segments))
    return 1 - sum(segments) / cells


def waste(images: Sequence[ImageInput], batches: Sequence[Sequence[int]]) -> dict[str, float]:
    """Mean padding per batch, weighted by patches: of full attention, of window attention, and if all went together."""
    total = sum(image.encode_tokens for image in images)
    found = {"full": 0.0, "window": 0.0}
    for batch in batches:
        grids = torch.from_numpy(np.stack([images[index].arrays["image_grid_thw"] for index in batch]))
        lengths = [images[index].encode_tokens for index in batch]
        found["full"] += padding(lengths) * sum(lengths) / total
        found["window"] += padding(window_lengths(grids)) * sum(lengths) / total
    lengths = [image.encode_tokens for image in images]
    return found | {"one call padded to the longest": 1 - total / (max(lengths) * len(lengths))}


def window_lengths(grids: torch.Tensor) -> list[int]:
    """Patches of every window: 112 x 112 pixels, smaller ones at the right and lower edges."""
    side = WINDOW // PATCH
    return [
        min(side, int(height) - top) * min(side, int(width) - left)
        for _, height, width in grids
        for top in range(0, int(height), side)
        for left in range(0, int(width), side)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--sides", type=int, nargs="+", default=[112, 168, 224, 280, 336, 448])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    images = make_images(options.images, options.sides)
    alone, batched = [[index] for index in range(len(images))], batch_images(images)
    towers = {name: build_tower(options.hidden, options.depth) for name in ("loop over segments", "buckets")}
    use_varlen_attention(towers["buckets"])
    variants = {
        (attention, label): (tower, batches)
        for attention, tower in towers.items()
        for label, batches in (("one image per call", alone), ("batched by size", batched))
    }
    reference = encode(towers["loop over segments"], images, alone)
    seconds: dict[tuple[str, str], list[float]] = {name: [] for name in variants}
    for number in range(options.rounds + 1):  # the first round warms up
        for name, (tower, batches) in variants.items():
            started = time.perf_counter()
            features = encode(tower, images, batches)
            if number:
                seconds[name].append(time.perf_counter() - started)
            torch.testing.assert_close(features, reference, rtol=1e-3, atol=1e-3)

    patches = sum(image.encode_tokens for image in images)
    table = Table(
        title=f"{len(images)} images of {min(i.encode_tokens for i in images)} to {max(i.encode_tokens for i in images)} "
        f"patches, {patches} in all; float32, {options.threads} thread(s), medians of {options.rounds} rounds"
    )
    for column in ("attention", "images", "calls", "padding, full", "padding, windows", "ms", "speed-up"):
        table.add_column(column, justify="right")
    rows: list[dict[str, Any]] = []
    base = statistics.median(next(iter(seconds.values())))
    for (attention, label), times in seconds.items():
        batches = variants[attention, label][1]
        median = statistics.median(times)
        padded = waste(images, batches) if attention == "buckets" else {"full": 0.0, "window": 0.0}
        rows.append(
            {
                "attention": attention,
                "images": label,
                "calls": len(batches),
                "padding": padded,
                "ms": median * 1e3,
                "speed_up": base / median,
            }
        )
        shares = (f"{padded['full']:.1%}", f"{padded['window']:.1%}")
        table.add_row(attention, label, str(len(batches)), *shares, f"{median * 1e3:.1f}", f"{base / median:.2f}")
    Console().print(table)
    naive = waste(images, batched)["one call padded to the longest"]
    print(f"One call padded to the longest image would be {naive:.1%} padding.")
    if not options.no_write:
        settings = {"hidden": options.hidden, "depth": options.depth, "threads": options.threads, "patches": patches}
        print("written to", write_result("vision_batching", settings | {"naive_padding": naive, "rows": rows}))


if __name__ == "__main__":
    main()
