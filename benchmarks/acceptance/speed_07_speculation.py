"""Speculation: the same tokens on every family, the same distribution, faster where text is predictable, never much slower.

    python benchmarks/acceptance/speed_07_speculation.py --model .demo/foveal-demo --draft .demo/foveal-demo-draft

Runs the tests for exactness and the chi-square test, then the table by task and K; what follows is handed to
benchmarks/speculation_table.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from harness_path import ROOT, run_tests

AT_LEAST = 1.5
NEVER_BELOW = 0.95


def main() -> None:
    from harness.speculation_tasks import PREDICTABLE

    run_tests("acceptance_speed_07_speculation", ["tests/integration/test_speculation.py"])
    subprocess.run([sys.executable, str(ROOT / "benchmarks" / "speculation_table.py"), *sys.argv[1:]], check=True)
    figures = json.loads((ROOT / "benchmarks" / "results" / "speculation_table.json").read_text())["figures"]
    checks: dict[str, bool] = {}
    for task in PREDICTABLE:
        best = max(figures[task], key=lambda row: float(row["speed_ratio"]))
        checks[f"{task}: {best['system']} is {best['speed_ratio']}x plain (at least {AT_LEAST})"] = (
            best["speed_ratio"] >= AT_LEAST
        )
    adaptive: list[dict[str, Any]] = [row for row in figures["random"] if "adaptive" in row["system"]]
    for row in adaptive:
        checks[f"random text: {row['system']} is {row['speed_ratio']}x plain (at least {NEVER_BELOW})"] = (
            row["speed_ratio"] >= NEVER_BELOW
        )
    for name, passed in checks.items():
        print("PASS" if passed else "FAIL", name)
    if not all(checks.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
