"""What a gateway adds, on text and on bodies with images: ours with everything on, the Rust gateways, a bare proxy.

    python benchmarks/gateway/environments.py DIR
    python benchmarks/acceptance/gateway_01_overhead.py --peers DIR [--rounds 3] [--seconds 3] [--only foveal smg_round_robin]

All run at the same time in front of one mock backend, and are asked in turns, so that a slow moment of the machine hits all
of them; ratios are taken within a round. Text: at most 0.4 ms added to the median at concurrency 1, at least 4,000 requests a
second at 16. 650 KB: not slower than the fastest Rust gateway. 4 MB: not slower than vllm-router (smg's round robin is the
goal). Memory above idle: at most three times the bytes admitted. Writes benchmarks/results/gateway_overhead.json. Needs wrk.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any

import harness_path  # noqa: F401  (puts benchmarks/ on the path)
from gateway.bodies import write_bodies
from gateway.contenders import CONTENDERS, HERE, Running, create_key, foveal_config, free_port, started
from gateway.load import Load, run_wrk, write_script
from gateway.process_cost import peak_bytes, processor_s, reset_peak, resident_bytes
from harness.record import write_result
from rich.progress import Progress

CONCURRENCIES = (1, 16)
MOST_ADDED_MS = 0.4
LEAST_PER_SECOND = 4000.0
MOST_MEMORY = 3.0
DIRECT = "direct"

Key = tuple[str, int, str]
"""(body, concurrency, contender)"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, default=Path("/nonexistent"), help="folder of environments.py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="threads of wrk")
    parser.add_argument("--bodies", nargs="+", default=["text", "image_650k", "image_4m"])
    parser.add_argument("--only", nargs="+", choices=sorted(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--name", default="gateway_overhead", help="result file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options)
    print(table(figures))
    print(f"written to {write_result(options.name, figures)}")
    return 0 if verdict(figures) else 1


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    bodies = write_bodies(folder)
    port = free_port()
    mock = subprocess.Popen([sys.executable, str(HERE / "mock_backend.py"), str(port)])
    backend = f"http://127.0.0.1:{port}"
    failures: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        stack.callback(mock.wait)
        stack.callback(mock.terminate)
        home = folder / "foveal"
        home.mkdir()
        os.environ.setdefault("PYTHONPATH", str(HERE.parents[1] / "src"))
        key = create_key(foveal_config(0, port, home))
        scripts = {name: write_script(folder / f"{name}.lua", path, key) for name, path in bodies.items()}
        running: list[Running] = []
        for name in options.only:
            try:
                text = bodies["text"].read_bytes()
                contender = started(name, port, folder / name, options.peers.resolve(), key, text)
                running.append(stack.enter_context(contender))
            except (RuntimeError, OSError) as error:
                failures[name] = str(error)
                print(f"{name} does not take part: {error}", file=sys.stderr)
        # First, while they are fresh: what was once taken from the system is not always given back.
        memory = {}
        if "image_4m" in options.bodies:
            memory = {contender.name: memory_figures(contender, scripts, bodies) for contender in running}
        targets = [(DIRECT, f"{backend}/v1/chat/completions", 0)]
        targets += [(contender.name, contender.url, contender.process.pid) for contender in running]
        runs: dict[Key, list[dict[str, float]]] = defaultdict(list)
        with Progress() as progress:
            task = progress.add_task(
                "rounds", total=options.rounds * len(options.bodies) * len(CONCURRENCIES) * len(targets)
            )
            for number in range(options.rounds):
                turn = number % len(targets)
                for body in options.bodies:
                    for concurrency in CONCURRENCIES:
                        # Another one goes first in each round.
                        for name, url, pid in targets[turn:] + targets[:turn]:
                            count(backend)
                            spent = processor_s(pid) if pid else 0.0
                            load = run_wrk(url, scripts[body], concurrency, options.seconds, options.threads)
                            spent = (processor_s(pid) - spent) if pid else 0.0
                            runs[body, concurrency, name].append(run_figures(load, spent, count(backend)))
                            progress.advance(task)
    return {"runs": rows(runs), "memory": memory, "did_not_take_part": failures}


def run_figures(load: Load, spent_s: float, arrived: int) -> dict[str, float]:
    """Raises RuntimeError where a figure would count answers to requests that never reached the backend."""
    if arrived < load.requests:
        raise RuntimeError(f"wrk counts {load.requests} answers, the backend {arrived} requests")
    return {
        "per_second": load.per_second,
        "p50_us": load.p50_us,
        "p99_us": load.p99_us,
        "errors": load.errors,
        "processor_us": spent_s / max(load.requests, 1) * 1e6,
        # Above 1 where a gateway asks twice, as vllm-router's default policy does.
        "asked": arrived / max(load.requests, 1),
    }


def count(backend: str) -> int:
    """Chat requests that reached the backend since the last call."""
    with urllib.request.urlopen(f"{backend}/count", timeout=10) as answer:
        return int(answer.read().split()[1])


def rows(runs: dict[Key, list[dict[str, float]]]) -> list[dict[str, Any]]:
    found = []
    for (body, concurrency, name), rounds in runs.items():
        direct = runs[body, concurrency, DIRECT]
        added = [mine["p50_us"] - theirs["p50_us"] for mine, theirs in zip(rounds, direct, strict=True)]
        found.append(
            {
                "body": body,
                "concurrency": concurrency,
                "gateway": name,
                "per_second": round(statistics.median(run["per_second"] for run in rounds), 1),
                "per_second_rounds": [round(run["per_second"], 1) for run in rounds],
                "p50_ms": round(statistics.median(run["p50_us"] for run in rounds) / 1000, 3),
                "p99_ms": round(statistics.median(run["p99_us"] for run in rounds) / 1000, 3),
                "added_p50_ms": round(statistics.median(added) / 1000, 3),
                "processor_us": round(statistics.median(run["processor_us"] for run in rounds), 1),
                "errors": int(sum(run["errors"] for run in rounds)),
                "asked": round(statistics.median(run["asked"] for run in rounds), 2),
            }
        )
    return found


def memory_figures(contender: Running, scripts: dict[str, Path], bodies: dict[str, Path]) -> dict[str, float]:
    """Peak resident size above idle at 16 requests of 4 MB, against the bytes that were admitted."""
    pid = contender.process.pid
    run_wrk(contender.url, scripts["text"], 1, 1)
    time.sleep(0.5)
    idle = resident_bytes(pid)
    reset_peak(pid)
    run_wrk(contender.url, scripts["image_4m"], 16, 2)
    admitted = 16 * bodies["image_4m"].stat().st_size
    above = max(0, peak_bytes(pid) - idle)
    return {
        "idle_mib": round(idle / 2**20, 1),
        "above_idle_mib": round(above / 2**20, 1),
        "of_admitted": round(above / admitted, 2),
    }


def table(figures: dict[str, Any]) -> str:
    lines = ["body        conc  gateway                    req/s    p50 ms   added ms   p99 ms   CPU us  errors"]
    lines += [
        f"{row['body']:11s} {row['concurrency']:4d}  {row['gateway']:24s} {row['per_second']:8.0f} {row['p50_ms']:9.3f} "
        f"{row['added_p50_ms']:9.3f} {row['p99_ms']:9.2f} {row['processor_us']:8.0f} {row['errors']:6d}"
        for row in figures["runs"]
    ]
    lines += [
        f"memory {name}: {memory['above_idle_mib']} MiB above idle, {memory['of_admitted']} of the bytes admitted"
        for name, memory in figures["memory"].items()
    ]
    return "\n".join(lines)


def verdict(figures: dict[str, Any]) -> bool:
    """Prints one line per promise; True if all are kept."""
    by_key: dict[Key, dict[str, Any]] = {
        (row["body"], row["concurrency"], row["gateway"]): row for row in figures["runs"]
    }
    kept = True

    def say(passed: bool, text: str, goal: bool = False) -> None:
        nonlocal kept
        kept &= passed or goal
        print("PASS" if passed else "GOAL MISSED" if goal else "FAIL", text)

    if ours := by_key.get(("text", 1, "foveal")):
        say(
            ours["added_p50_ms"] <= MOST_ADDED_MS,
            f"text: {ours['added_p50_ms']} ms added at concurrency 1, at most {MOST_ADDED_MS}",
        )
    if ours := by_key.get(("text", 16, "foveal")):
        say(
            ours["per_second"] >= LEAST_PER_SECOND,
            f"text: {ours['per_second']:.0f} a second at 16, at least {LEAST_PER_SECOND:.0f}",
        )
    for body, goals in (("image_650k", ()), ("image_4m", ("smg_round_robin", "smg_default"))):
        ours = by_key.get((body, 16, "foveal"))
        for name in CONTENDERS:
            peer = by_key.get((body, 16, name))
            if ours and peer and name.startswith(("smg", "vllm_router")):
                ratio = statistics.median(
                    mine / theirs
                    for mine, theirs in zip(ours["per_second_rounds"], peer["per_second_rounds"], strict=True)
                )
                say(ratio >= 1, f"{body}: {ratio:.2f} times the requests a second of {name} at 16", goal=name in goals)
    if memory := figures["memory"].get("foveal"):
        say(
            memory["of_admitted"] <= MOST_MEMORY,
            f"memory above idle is {memory['of_admitted']} of the bytes admitted, at most 3",
        )
    errors = sum(row["errors"] for row in figures["runs"] if row["gateway"] == "foveal")
    say(errors == 0, f"{errors} errors")
    return kept


if __name__ == "__main__":
    sys.exit(main())
