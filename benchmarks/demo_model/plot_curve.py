"""Draws the learning curve: `python benchmarks/demo_model/plot_curve.py learning_curve.json learning_curve.png`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

PANELS = {
    "names": ("easy_vqa", "color", "shape", "text_color", "exists"),
    "counts": ("count", "count_color", "count_shape", "bar_count", "digit"),
    "comparisons": ("relation", "relation_yes_no", "which_side", "bar_tallest", "bar_shortest", "bar_compare"),
    "captions": ("caption_shapes", "caption_bars", "caption_text", "caption_category", "category"),
}


def main(source: Path, target: Path) -> None:
    curve = json.loads(source.read_text())["curve"]
    figure, axes = plt.subplots(1, len(PANELS), figsize=(18, 4.2), sharey=True, layout="constrained")
    for axis, (title, tasks) in zip(axes, PANELS.items(), strict=True):
        for task in tasks:
            points = [(p["minutes"], p["exact_match"][task]) for p in curve if task in p["exact_match"]]
            axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=task)
        axis.set(title=title, xlabel="training minutes (two shared cores)", ylim=(0, 102))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="lower right")
    axes[0].set_ylabel("held-out exact match, %")
    figure.savefig(target, dpi=90)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
