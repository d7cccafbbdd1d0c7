"""What the fast paths cost in quality: logits beside the float32 oracle, task accuracy and the gate's verdict as served.

    python benchmarks/acceptance/speed_05_quality.py --model .demo/foveal-demo --on-load int8

Float32 must stay token-exact (contract tests). For every number format the next-token distributions over English text
are compared with transformers' in float32. Then `foveal compress MODEL --recipe w8a8` (unless --artefact names what it
made) and `foveal prove ARTEFACT --against MODEL --kv-dtype int8`: the gate must accept it, and each task and all together
may lose half a point. A task's 240 questions hardly tell that from chance: its row has the gate's interval.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from harness_path import run_tests
from rich.console import Console
from rich.table import Table

from foveal.engine.execution.kv_pool import allocate_kv_cache
from foveal.evaluation.suite import DEFAULT
from foveal.kernels.attention_batch import AttentionBatch
from foveal.models.base import ModelStep
from foveal.models.loading import load_processor
from foveal.models.run_formats import RunFormats
from foveal.pipeline.suite_data import resolve_suite

WINDOW = 512
MOST_KL = {"bfloat16": 0.02, "int8": 0.01, "int8, KV int8": 0.01}
"""Nats per token; the gate of `foveal prove` allows 0.02 on answers."""
MOST_POINTS = 0.5


FORMATS = {
    "float32, native": RunFormats(dtype="float32", decoder="native"),
    "bfloat16": RunFormats(dtype="bfloat16"),
    "int8": RunFormats(quantize="int8"),
    "int8, KV int8": RunFormats(quantize="int8", kv_dtype="int8"),
    "int4": RunFormats(quantize="int4"),
    "int4, KV int8": RunFormats(quantize="int4", kv_dtype="int8"),
}


@torch.inference_mode()
def log_probabilities(model_path: str, formats: RunFormats, windows: list[list[int]]) -> torch.Tensor:
    """[tokens, vocab]"""
    model = formats.load(model_path)
    pool = allocate_kv_cache(
        model.spec, num_blocks=WINDOW, block_size=1, dtype=formats.kv_format(model), device=model.device
    )
    slots = torch.arange(WINDOW)
    parts = []
    for ids in windows:
        step = ModelStep(
            torch.tensor(ids), slots[None], None, None, AttentionBatch(slots, slots[None], [0, WINDOW], [WINDOW])
        )
        parts.append(model.compute_logits(model.forward(step, pool)).log_softmax(-1))
    return torch.cat(parts)


def divergence(oracle: torch.Tensor, found: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    loss = -found.gather(1, targets[:, None]).mean()
    return {
        "kl": (oracle.exp() * (oracle - found)).sum(-1).mean().item(),
        "top1": (oracle.argmax(-1) == found.argmax(-1)).float().mean().item(),
        "error_p99": (oracle - found).abs().amax(-1).quantile(0.99).item(),
        "perplexity": loss.exp().item(),
    }


def foveal(*arguments: str, fine: tuple[int, ...] = (0,)) -> str:
    """What the command printed."""
    command = [sys.executable, "-W", "ignore", "-m", "foveal.cli.app", *arguments]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode not in fine:
        raise SystemExit(f"{' '.join(command)} ended with {run.returncode}")
    return run.stdout


def prove(candidate: str, base: str, *flags: str) -> dict[str, Any]:
    arguments = ("prove", candidate, "--against", base, "--kv-dtype", "int8", "--json", *flags)
    proof = json.loads(foveal(*arguments, fine=(0, 1)))  # 1 is a no
    found = {finding["check"]: finding for finding in proof["verdict"]["findings"]}
    tasks = {}
    for task, result in proof["candidate"]["tasks"].items():
        ours, theirs = (sum(r["per_item"]) / len(r["per_item"]) for r in (result, proof["base"]["tasks"][task]))
        tasks[task] = {
            "candidate": ours,
            "base": theirs,
            "points": 100 * (ours - theirs),
            "gate": found[f"task {task}"]["reason"],
        }
    return {
        "accepted": proof["verdict"]["accepted"],
        "reasons": proof["verdict"]["reasons"],
        "run_as": proof["candidate"]["run_as"],
        "tasks": tasks,
        "points": sum(row["points"] for row in tasks.values()) / len(tasks),
        "perplexity": [proof[who]["perplexity"]["value"] for who in ("candidate", "base")],
        "speed": {who: proof[who]["speed"] for who in ("candidate", "base")},
    }


def task_table(name: str, proof: dict[str, Any]) -> Table:
    table = Table(title=f"{name}, run as {proof['run_as']}: {'accepted' if proof['accepted'] else 'rejected'}")
    for column in ("task", "base", "candidate", "points", "the gate"):
        table.add_column(column, justify="left" if column in ("task", "the gate") else "right")
    for task, row in proof["tasks"].items():
        table.add_row(task, f"{row['base']:.1%}", f"{row['candidate']:.1%}", f"{row['points']:+.2f}", row["gate"])
    return table


def main() -> None:
    from harness.record import write_result

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--windows", type=int, default=8, help=f"of {WINDOW} tokens")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--artefact", help="what `foveal compress MODEL --recipe w8a8` made; else it is made now")
    parser.add_argument(
        "--on-load", nargs="*", default=[], choices=["int8", "int4"], help="prove rounding on load too; not judged"
    )
    parser.add_argument("--quick", action="store_true", help="the quick suite")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    run_tests("acceptance_speed_05_exactness", ["tests/contract/test_language_model.py"])

    tokenizer = load_processor(options.model).tokenizer
    ids = tokenizer(resolve_suite(DEFAULT).passage[: WINDOW * options.windows * 8], add_special_tokens=False)[
        "input_ids"
    ]
    windows = [ids[i * WINDOW : (i + 1) * WINDOW] for i in range(options.windows)]
    targets = torch.tensor([ids[i * WINDOW + 1 : (i + 1) * WINDOW + 1] for i in range(options.windows)]).flatten()
    oracle = log_probabilities(options.model, RunFormats(dtype="float32", decoder="hf"), windows)
    table = Table(title=f"Next-token distributions beside transformers' float32, {len(targets):,} tokens of English")
    for column in ("", "KL, nats", "same top-1", "99th pct of |log p| error", "perplexity"):
        table.add_column(column, justify="right")
    logits: dict[str, Any] = {}
    for name, formats in FORMATS.items():
        row = logits[name] = divergence(oracle, log_probabilities(options.model, formats, windows), targets)
        cells = (f"{row['kl']:.5f}", f"{row['top1']:.2%}", f"{row['error_p99']:.3f}", f"{row['perplexity']:.3f}")
        table.add_row(name, *cells)
    Console().print(table)

    flags = ["--threads", str(options.threads), *(["--quick"] if options.quick else [])]
    with tempfile.TemporaryDirectory() as folder:
        artefact = options.artefact or str(Path(folder) / "w8a8")
        if options.artefact is None:
            foveal("compress", options.model, "--recipe", "w8a8", "--output", artefact)
        proofs = {"W8A8": prove(artefact, options.model, *flags)}
    for quantize in options.on_load:
        proofs[f"{quantize} on load"] = prove(options.model, options.model, "--quantize", quantize, *flags)
    for name, proof in proofs.items():
        Console().print(task_table(f"{name}, KV int8", proof))
        for reason in proof["reasons"]:
            print("     rejected:", reason)
    judged = proofs["W8A8"]
    checks = {
        f"KL of {name} is {logits[name]['kl']:.5f} (at most {most})": logits[name]["kl"] <= most
        for name, most in MOST_KL.items()
    }
    checks["prove accepts W8A8 with an INT8 cache"] = judged["accepted"]
    for task, row in judged["tasks"].items():
        # One question of a task is 0.42 points: the table above has what the gate makes of it.
        checks[f"{task}: {row['points']:+.2f} points (at least -{MOST_POINTS})"] = row["points"] >= -MOST_POINTS
    checks[f"all {len(judged['tasks'])} tasks: {judged['points']:+.2f} points (at least -{MOST_POINTS})"] = (
        judged["points"] >= -MOST_POINTS
    )
    for name, passed in checks.items():
        print("PASS" if passed else "FAIL", name)
    print("written to", write_result("acceptance_speed_05_quality", {"logits": logits, "proofs": proofs}))
    if not all(checks.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
