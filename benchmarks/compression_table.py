"""Row by row: what each recipe does to the demo VLM. Size, perplexity, every task, captions, sight, seconds, verdict.

    python benchmarks/compression_table.py --model .demo/foveal-demo --folder .demo/compressed [--draft .demo/foveal-demo-draft]

Runs `foveal compress` and `foveal prove` as a user would. A row whose result lies in the folder is not made again, so that
two processes with other `--rows` can share the work; the last call, with all rows, writes the result. All rows are measured
on the quick suite; what it does not reject for certain is judged by the default suite, which takes four times as long.
With `--draft`, the same recipes are tried on a language model that was trained in 16 bits: the demo VLM's was stored in 4
bits once.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from harness.record import write_result
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file

FLOAT16 = "float16"
ROWS: dict[str, list[str]] = {
    FLOAT16: [],
    "w8a8": ["--recipe", "w8a8"],
    "w4a16-gptq": ["--recipe", "w4a16-gptq"],
    "w4a16-awq": ["--recipe", "w4a16-awq"],
    "nf4": ["--recipe", "nf4"],
    "rtn4": ["--recipe", "rtn4"],
    "mixed 60%": ["--budget", "60%"],
    "mixed = gptq": ["--budget", "{bytes of w4a16-gptq}"],
    "mixed 35%": ["--budget", "35%"],
}
DRAFT_ROWS = ("w8a16", "w4a16-gptq", "w4a16-awq", "nf4", "rtn4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="compressed models and reports, 100 MB each")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--text", default="auto")
    parser.add_argument("--draft", type=Path, help="a directory of `foveal demo-draft`")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict[str, Any]] = {}
    for name in options.rows:
        kept = options.folder / f"{name.replace(' ', '-').replace('%', '').replace('=', 'as')}.json"
        if not kept.exists():
            wanted = [_filled(argument, rows) for argument in ROWS[name]]
            kept.write_text(json.dumps(_row(options.model, wanted, options, kept.with_suffix(""))))
        rows[name] = json.loads(kept.read_text())
        print(f"{name}: {_summary(rows[name])}", flush=True)
    draft: dict[str, dict[str, Any]] = {}
    for name in DRAFT_ROWS if options.draft else ():
        kept = options.folder / f"draft-{name}.json"
        if not kept.exists():
            kept.write_text(json.dumps(_row(options.draft, ["--recipe", name], options, kept.with_suffix(""))))
        draft[name] = json.loads(kept.read_text())
        print(f"draft {name}: {_summary(draft[name])}", flush=True)
    figures = {"base": _base(rows), "rows": rows, "draft_base": _base(draft), "draft": draft}
    path = write_result("compression_table", _for_people(figures))
    _show(figures)
    print(f"written to {path}")


def _row(model: Path, wanted: list[str], options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    threads = [] if options.threads is None else ["--threads", str(options.threads)]
    began = time.perf_counter()
    if wanted:
        made = _foveal("compress", str(model), *wanted, "--output", str(folder), "--force", "--json", *threads)
        if made.returncode:
            return {"failed": made.stderr.strip().splitlines()[-5:]}
        record = json.loads(made.stdout)
    else:
        record = {"bytes": _save_float16(model, folder)}
    seconds = time.perf_counter() - began
    prove = ["prove", str(folder), "--against", str(model), "--json", "--text", options.text, *threads]
    proved = _foveal(*prove, "--quick", "--report", str(folder.with_suffix(".quick.html")))
    if proved.returncode not in (0, 1):
        return {"failed": proved.stderr.strip().splitlines()[-5:]}
    row = {
        "arguments": wanted,
        "compress_s": round(seconds, 1),
        "compressed": record,
        "proof": json.loads(proved.stdout),
    }
    if wanted and not _has_failed(row["proof"]):
        proved = _foveal(*prove, "--report", str(folder.with_suffix(".html")))
        row["full_proof"] = json.loads(proved.stdout)
    return row


def _for_people(figures: Any) -> Any:
    """Without sample answers (the reports show them) and this machine's folders."""
    if isinstance(figures, dict):
        return {key: _for_people(value) for key, value in figures.items() if key not in ("samples", "output")}
    return [_for_people(value) for value in figures] if isinstance(figures, list) else figures


def _has_failed(proof: dict[str, Any]) -> bool:
    """Whether a limit is passed for certain: more questions would not change that."""
    return any(not one["passed"] and one["evidence"] != "undecided" for one in proof["verdict"]["findings"])


def _save_float16(model: Path, folder: Path) -> int:
    """Every tensor of the checkpoint cast, nothing else changed; returns the bytes of the weights."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model, folder)
    total = 0
    for path in folder.glob("*.safetensors"):
        tensors = {name: tensor.to(torch.float16) for name, tensor in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
        total += path.stat().st_size
    return total


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
    verdict = _verdict(row)
    return f"{row['compressed']['bytes'] / 1e6:.1f} MB, {row['compress_s']} s, {verdict}"


def _verdict(row: dict[str, Any]) -> str:
    if "recipe" not in row["compressed"]:
        return ""  # a plain copy has no passport to judge
    return "accepted" if row.get("full_proof", row["proof"])["verdict"]["accepted"] else "rejected"


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
            _verdict(row),
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
    if figures["draft_base"] is None:
        return
    trained = Table(title="The demo draft, trained in 16 bits: perplexity beside its base")
    trained.add_column("recipe")
    for column in ("MB", "perplexity", "change", "the demo VLM's"):
        trained.add_column(column, justify="right")
    before, vlm = figures["draft_base"]["perplexity"]["value"], base["perplexity"]["value"]
    for name, row in figures["draft"].items():
        if "proof" not in row:
            continue
        found = row["proof"]["candidate"]["perplexity"]["value"]
        same = done.get(name)
        beside = f"{same['proof']['candidate']['perplexity']['value'] / vlm - 1:+.1%}" if same else ""
        size = f"{row['compressed']['bytes'] / 1e6:.1f}"
        trained.add_row(name, size, f"{found:.2f}", f"{found / before - 1:+.1%}", beside)
    console.print(trained)


if __name__ == "__main__":
    main()
