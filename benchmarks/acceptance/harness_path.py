"""Makes `benchmarks/harness` importable from these scripts, and runs tests as one of them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["ROOT", "run_tests"]

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))


def run_tests(name: str, tests: Sequence[str]) -> None:
    """Run tests with their names shown, and keep the summary. Exits with 1 if one fails."""
    from harness.record import write_result

    began = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "--no-header", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    print(run.stdout)
    summary = run.stdout.strip().splitlines()[-1].strip("= ")
    print("written to", write_result(name, {"summary": summary, "seconds": round(time.perf_counter() - began, 1)}))
    if run.returncode:
        raise SystemExit(1)
