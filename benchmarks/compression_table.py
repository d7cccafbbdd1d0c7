"""Row by row: what each recipe does to the demo VLM. Size, perplexity, every task, captions, sight, seconds, verdict.

    python benchmarks/compression_table.py --model .demo/foveal-demo --folder .demo/compressed [--quick]

Runs `foveal compress` and `foveal prove` as a user would. A row whose result lies in the folder is not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness.record import write_result
from rich.console import Console
from rich.table import Table

ROWS: dict[str, list[str]] = {
    "w8a8": ["--recipe", "w8a8"],
    "w8a16": ["--recipe", "w8a16"],
    "w4a16-gptq": ["--recipe", "w4a16-gptq"],
    "w4a16-awq": ["--recipe", "w4a16-awq"],
    "nf4": ["--recipe", "nf4"],
    "rtn4": ["--recipe", "rtn4"],
    "vlm-mixed": ["--recipe", "vlm-mixed"],
    "mixed 60%": ["--budget", "60%"],
    "mixed 45%": ["--budget", "45%"],
    "mixed = rtn4": ["--budget", "{bytes of rtn4}"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="compressed models and reports, 100 MB each")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--quick", action="store_true", help="the quick suite")
    parser.add_argument("--text", default="auto")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict[str, Any]] = {}
    for name in options.rows:
        kept = options.folder / f"{name.replace(' ', '-').replace('%', '').replace('=', 'as')}.json"
        if not kept.exists():
            kept.write_text(json.dumps(_row(name, options, rows, kept.with_suffix(""))))
        rows[name] = json.loads(kept.read_text())
        print(f"{name}: {_summary(rows[name])}", flush=True)
    figures = {"suite": "quick" if options.quick else "default", "base": _base(rows), "rows": rows}
    path = write_result("compression_table", figures)
    _show(figures)
    print(f"written to {path}")


def _row(name: str, options: argparse.Namespace, rows: dict[str, dict[str, Any]], folder: Path) -> dict[str, Any]:
    wanted = [_filled(argument, rows) for argument in ROWS[name]]
    threads = [] if options.threads is None else ["--threads", str(options.threads)]
    began = time.perf_counter()
    made = _foveal("compress", str(options.model), *wanted, "--output", str(folder), "--force", "--json", *threads)
    seconds = time.perf_counter() - began
    if made.returncode:
        return {"failed": made.stderr.strip().splitlines()[-5:]}
    record = json.loads(made.stdout)
    proved = _foveal(
        "prove", str(folder), "--against", str(options.model), "--json", "--text", options.text,
        "--report", str(folder.with_suffix(".html")), *(["--quick"] if options.quick else []), *threads,
    )  # fmt: skip
    if proved.returncode not in (0, 1):
        return {"failed": proved.stderr.strip().splitlines()[-5:]}
    return {
        "arguments": wanted,
        "compress_s": round(seconds, 1),
        "compressed": record,
        "proof": json.loads(proved.stdout),
    }


def _filled(argument: str, rows: dict[str, dict[str, Any]]) -> str:
    if not argument.startswith("{bytes of "):
        return argument
    return f"{rows[argument.removeprefix('{bytes of ').removesuffix('}')]['compressed']['bytes'] / 1e6:.3f}MB"


def _foveal(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "foveal.cli.app", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def _base(rows: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    return next((row["proof"]["base"] for row in rows.values() if "proof" in row), None)


def _accuracy(evaluation: dict[str, Any]) -> dict[str, float]:
    return {
        task: 100 * sum(result["per_item"]) / max(1, len(result["per_item"]))
        for task, result in evaluation["tasks"].items()
    }


def _summary(row: dict[str, Any]) -> str:
    if "failed" in row:
        return "failed: " + " ".join(row["failed"])
    verdict = "accepted" if row["proof"]["verdict"]["accepted"] else "rejected"
    return f"{row['compressed']['bytes'] / 1e6:.1f} MB, {row['compress_s']} s, {verdict}"


def _show(figures: dict[str, Any]) -> None:
    base = figures["base"]
    done = {name: row for name, row in figures["rows"].items() if "proof" in row and row["proof"]["candidate"]}
    if base is None:
        return
    half = base["size_bytes"] / 2
    table = Table(title="Demo VLM; size in percent of 16 bits")
    columns = ("recipe", "MB", "size", "s", "perplexity", "BLEU-4", "greedy equal", "KL", "sight, KL of a swap", "gate")
    for column in columns:
        table.add_column(column, justify="left" if column == "recipe" else "right")
    table.add_row(
        "float32 base", f"{base['size_bytes'] / 1e6:.0f}", "200%", "", f"{base['perplexity']['value']:.2f}",
        f"{base['captions']['bleu4']:.1f}", "", "", f"{base['image_sensitivity']['swap']['kl']:.2f}", "",
    )  # fmt: skip
    for name, row in done.items():
        found = row["proof"]["candidate"]
        table.add_row(
            name,
            f"{found['size_bytes'] / 1e6:.1f}",
            f"{found['size_bytes'] / half:.0%}",
            f"{row['compress_s']:.0f}",
            f"{found['perplexity']['value']:.2f}",
            f"{found['captions']['bleu4']:.1f}",
            f"{found['agreement']['greedy_exact']:.1%}",
            f"{found['kl']['mean']:.4f}",
            f"{found['image_sensitivity']['swap']['kl']:.2f}",
            "accepted" if row["proof"]["verdict"]["accepted"] else "rejected",
        )
    tasks = Table(title="Right answers, %")
    tasks.add_column("task")
    for name in ("base", *done):
        tasks.add_column(name, justify="right")
    accuracies = [_accuracy(base), *(_accuracy(row["proof"]["candidate"]) for row in done.values())]
    for task in accuracies[0]:
        tasks.add_row(task, *(f"{found.get(task, float('nan')):.1f}" for found in accuracies))
    console = Console(width=200)
    console.print(table)
    console.print(tasks)


if __name__ == "__main__":
    main()
