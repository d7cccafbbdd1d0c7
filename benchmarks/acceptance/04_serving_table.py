"""The serving table with its thresholds: at 16 clients at least 4x transformers one by one; alone not slower; a repeated
picture's TTFT at most a third of the first.

    python benchmarks/acceptance/04_serving_table.py --model .demo/foveal-demo
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> None:
    subprocess.run([sys.executable, str(ROOT / "benchmarks" / "serving_table.py"), *sys.argv[1:]], check=True)
    figures = json.loads((ROOT / "benchmarks" / "results" / "serving_table.json").read_text())["figures"]
    ratio = {(row["system"], row["concurrency"]): row["ratio"] for row in figures["rows"]}
    checks = {
        "continuous at 16 clients / HF one by one, at least 4": ratio["Foveal continuous", 16] >= 4,
        "continuous at 1 client / HF one by one, at least 1": ratio["Foveal continuous", 1] >= 1,
        "TTFT of a repeated picture, at most 1/3 of the first": figures["repeated_image"]["ratio"] <= 1 / 3,
    }
    for name, passed in checks.items():
        print("PASS" if passed else "FAIL", name)
    if not all(checks.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
