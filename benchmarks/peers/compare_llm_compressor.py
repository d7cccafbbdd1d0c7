"""GPTQ and AWQ beside llm-compressor's: same model, samples, bits, groups and linears, one judge.

The peer runs in its own environment (README.md), named by --peer-python. The two take turns under the same load, with the
same number of threads, each run a fresh process. A run that has finished is kept in --work and not repeated, so a
comparison can be interrupted, or extended by more draws.

python benchmarks/peers/compare_llm_compressor.py --model DEMO_VLM --peer-python PEER/bin/python --work DIR
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))
from harness.record import write_result
from language_model import extract_language_model
from perplexity_of_packed import load_dense, perplexity
from text_samples import make_text_samples

from foveal.evaluation.text_corpus import fetch_wiki_summaries, read_text

_HERE = Path(__file__).parent
_SIDES = ("foveal", "llm-compressor")


def run_once(side: str, method: str, samples: Path, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One compression in a fresh process; its report, and where it says so in `out`/report.json."""
    kept = out / "report.json"
    if kept.exists():
        return json.loads(kept.read_text())
    shutil.rmtree(out, ignore_errors=True)
    script, python = (
        ("foveal_run.py", sys.executable) if side == "foveal" else ("llm_compressor_run.py", options.peer_python)
    )
    command = [python, str(_HERE / script), "--model", str(options.work / "model"), "--samples", str(samples)]
    command += ["--method", method, "--bits", str(options.bits), "--group", str(options.group)]
    command += ["--threads", str(options.threads), "--out", str(out)]
    command += ["--work", str(options.work / "blocks")] if side == "foveal" else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{side} {method} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    report: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    windows = json.loads(samples.read_text())["windows"]
    report["perplexity"] = perplexity(load_dense(options.work / "model", out), windows)
    report["weight_bytes"] = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    for file in out.glob("*.safetensors"):
        file.unlink()
    kept.write_text(json.dumps(report))
    return report


def compare(method: str, options: argparse.Namespace, text: str) -> list[dict[str, Any]]:
    """One entry per draw of calibration passages: {"seed", "foveal": report, "llm-compressor": report}."""
    drawn = []
    for seed in range(options.draws):
        passages = options.passages if method == "gptq" else options.awq_passages
        samples = options.work / f"samples-{passages}-{seed}.json"
        made = make_text_samples(
            text, options.work / "model", num_passages=passages, num_windows=options.windows, seed=seed
        )
        made.write(samples)
        entry: dict[str, Any] = {"seed": seed, "passages": passages, "tokens": sum(map(len, made.calibration))}
        for side in _SIDES if seed % 2 == 0 else _SIDES[::-1]:
            entry[side] = run_once(side, method, samples, options.work / f"{method}-{seed}-{side}", options)
        drawn.append(entry)
    return drawn


def summary(drawn: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Ratios ours / theirs: of perplexities (geometric mean over draws) and of times (median)."""
    ours, theirs = ([entry[side] for entry in drawn] for side in _SIDES)
    return {
        "perplexity_ratio": math.exp(
            statistics.fmean(math.log(a["perplexity"] / b["perplexity"]) for a, b in zip(ours, theirs, strict=True))
        ),
        **{
            f"{key}_ratio": statistics.median(a[key] / b[key] for a, b in zip(ours, theirs, strict=True))
            for key in ("seconds", "processor_seconds")
        },
    }


def show(figures: dict[str, Any]) -> None:
    table = Table(title=f"{figures['format']}, dense perplexity {figures['dense_perplexity']:.3f}")
    for heading in ("method", "draw", "by", "perplexity", "over dense", "seconds", "CPU seconds"):
        table.add_column(heading, justify="left" if heading in ("method", "by") else "right")
    for method, found in figures["methods"].items():
        for entry in found["draws"]:
            for side in _SIDES:
                report = entry[side]
                worse = report["perplexity"] / figures["dense_perplexity"] - 1
                cells = (f"{report['perplexity']:.3f}", f"{worse:+.2%}")
                times = (f"{report['seconds']:.0f}", f"{report['processor_seconds']:.0f}")
                table.add_row(method, str(entry["seed"]), side, *cells, *times)
        ratios = found["ours_to_theirs"]
        times = (f"{ratios['seconds_ratio']:.2f}", f"{ratios['processor_seconds_ratio']:.2f}")
        table.add_row(method, "", "ours / theirs", f"{ratios['perplexity_ratio']:.4f}", "", *times, end_section=True)
    Console(width=100).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, required=True, help="LLaVA checkpoint, such as `foveal demo-model` writes"
    )
    parser.add_argument("--peer-python", required=True, help="interpreter of the peer's environment")
    parser.add_argument("--work", type=Path, required=True, help="directory for the extracted model and finished runs")
    parser.add_argument("--text", type=Path, help="English text (default: the pinned encyclopaedia summaries)")
    parser.add_argument("--methods", nargs="+", choices=("gptq", "awq", "rtn"), default=["gptq", "awq"])
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group", type=int, default=64, help="must divide hidden and MLP width (default 64)")
    parser.add_argument("--passages", type=int, default=64, help="calibration passages of about 245 tokens")
    parser.add_argument(
        "--awq-passages", type=int, default=16, help="fewer: the peer's search runs each 60 times a layer"
    )
    parser.add_argument("--windows", type=int, default=64, help="test windows of 256 tokens")
    parser.add_argument("--draws", type=int, default=2, help="different calibration passages")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    model = options.work / "model"
    if not (model / "model.safetensors").exists():
        extract_language_model(options.model, model)
    text = read_text(options.text or fetch_wiki_summaries())
    found = {}
    for method in options.methods:
        drawn = compare(method, options, text)
        found[method] = {"draws": drawn, "ours_to_theirs": summary(drawn)}
    windows = make_text_samples(text, model, num_passages=1, num_windows=options.windows, seed=0).windows
    figures = {
        "format": f"int{options.bits} symmetric, groups of {options.group}, all linears of the layers",
        "threads": options.threads,
        "test_tokens": sum(len(window) - 1 for window in windows),
        "dense_perplexity": perplexity(load_dense(model), windows),
        "methods": found,
    }
    show(figures)
    sys.stdout.write(f"{write_result('peer_llm_compressor', figures)}\n")


if __name__ == "__main__":
    main()
