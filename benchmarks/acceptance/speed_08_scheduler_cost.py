"""Time per step outside the model: below 5 % at 64 running requests, and linear in them up to 1,000.

    python benchmarks/acceptance/speed_08_scheduler_cost.py --model .demo/foveal-demo

Linear: a request costs at most 1.5 times as much among 1,000 as among 64.
"""

from __future__ import annotations

import json
import subprocess
import sys

from harness_path import ROOT

MOST_SHARE = 0.05
MOST_GROWTH = 1.5


def main() -> None:
    script = ROOT / "benchmarks" / "scheduler_cost.py"
    subprocess.run([sys.executable, str(script), *sys.argv[1:]], check=True)
    figures = json.loads((ROOT / "benchmarks" / "results" / "scheduler_cost.json").read_text())["figures"]
    failed = False
    for row in figures["share"]:
        passed = row["share"] < MOST_SHARE
        failed |= not passed
        print("PASS" if passed else "FAIL", f"{row['sampling']}: {row['share']:.1%} outside the model, below 5 %")
    per_request = {row["running"]: row["us_per_request"] for row in figures["linear"]}
    growth = per_request[1000] / per_request[64]
    passed = growth <= MOST_GROWTH
    print(
        "PASS" if passed else "FAIL", f"a request among 1,000 costs {growth:.2f} of one among 64, at most {MOST_GROWTH}"
    )
    if failed or not passed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
