"""Engines beside each other on two models (mission row B3): `foveal bench peers` on both -> results/peers.json and .png.

    python benchmarks/peers/environments.py .demo/peers
    python benchmarks/peers_table.py --model .demo/foveal-demo --environments .demo/peers

Model 1 is the demo VLM's language model (SmolLM2-135M), model 2 a Llama of 0.4 billion random weights; both are written
below the folder of environments the first time. Peers that do not run here stay in the table with the reason.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "peers"))
from harness.record import RESULTS, this_run, write_result
from language_model import extract_language_model
from random_model import write_random_model

MODELS = ("smollm2-135m", "random-0.4b")


def models(vlm: Path, folder: Path) -> dict[str, Path]:
    """Both checkpoints, written where they are not there yet."""
    found = {name: folder / name for name in MODELS}
    if not (found[MODELS[0]] / "model.safetensors").exists():
        extract_language_model(vlm, found[MODELS[0]])
    if not (found[MODELS[1]] / "model.safetensors").exists():
        write_random_model(vlm, found[MODELS[1]])
    return found


def compare(model: Path, environments: Path, flags: list[str]) -> dict[str, Any]:
    """One run of `foveal bench peers`."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.json"
        command = [sys.executable, "-m", "foveal.cli.app", "bench", "peers", str(model)]
        command += ["--environments", str(environments), "--json", str(out), *flags]
        subprocess.run(command, check=True)
        return json.loads(out.read_text())


def kept(measured: list[str]) -> list[dict[str, Any]]:
    """Reports of the last result file on other models: one model takes half an hour."""
    path = RESULTS / "peers.json"
    reports = json.loads(path.read_text())["figures"]["models"] if path.exists() else []
    return [report for report in reports if report["model"] not in measured]


def plot(reports: list[dict[str, Any]], path: Path) -> None:
    """Decode rates: one row of panels per model, one panel per workload."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = max(len(report["workloads"]) for report in reports)
    figure, panels = plt.subplots(
        len(reports), columns, figsize=(6 * columns, 4.5 * len(reports)), squeeze=False, constrained_layout=True
    )
    for line, report in zip(panels, reports, strict=True):
        for panel, workload in zip(line, report["workloads"], strict=False):
            rows = [row for row in report["engines"] if workload in row["speed"]]
            rows.sort(key=lambda row: row["speed"][workload]["decode_tok_s"])
            rates = [row["speed"][workload]["decode_tok_s"] for row in rows]
            colours = ["#c2410c" if row["engine"].startswith("foveal") else "#94a3b8" for row in rows]
            bars = panel.barh([row["engine"] for row in rows], rates, color=colours)
            panel.bar_label(bars, fmt="%.0f", padding=3, fontsize=8)
            panel.set_title(f"{report['model']}: {workload} tokens", fontsize=10)
            panel.set_xlabel("decode tok/s")
            panel.margins(x=0.12)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the demo VLM")
    parser.add_argument("--environments", type=Path, required=True, help="folder of benchmarks/peers/environments.py")
    parser.add_argument("--only", choices=MODELS, nargs="+", default=list(MODELS), help="the others' rows stay")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options, flags = parser.parse_known_args()
    written = models(options.model, options.environments / "checkpoints")
    reports = [{**compare(written[name], options.environments.resolve(), flags), **this_run()} for name in options.only]
    if options.no_write:
        return
    reports = sorted(reports + kept(options.only), key=lambda report: MODELS.index(report["model"]))
    print("written to", write_result("peers", {"models": reports}))
    plot(reports, RESULTS / "peers.png")
    print("written to", RESULTS / "peers.png")


if __name__ == "__main__":
    main()
