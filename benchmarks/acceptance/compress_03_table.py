"""The compression table of the demo VLM with its thresholds.

INT8 within half a point and half a percent; a 4-bit recipe that passes the gate at 45 % of 16 bits or less; mixed by
sensitivity better than uniform at equal bytes.

    python benchmarks/acceptance/compress_03_table.py --model .demo/foveal-demo --folder .demo/compressed
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from harness_path import ROOT


def accepted(row: dict[str, Any]) -> bool:
    return bool(row.get("full_proof", row["proof"])["verdict"]["accepted"])


def main() -> None:
    subprocess.run([sys.executable, str(ROOT / "benchmarks" / "compression_table.py"), *sys.argv[1:]], check=True)
    figures = json.loads((ROOT / "benchmarks" / "results" / "compression_table.json").read_text())["figures"]
    rows, base = figures["rows"], figures["base"]
    half = base["size_bytes"] / 2
    four_bit = ("w4a16-gptq", "w4a16-awq", "nf4", "rtn4", "mixed = gptq", "mixed 35%")
    perplexity = {
        name: row["proof"]["candidate"]["perplexity"]["value"] for name, row in rows.items() if "proof" in row
    }
    checks = {
        "INT8 passes the gate (0.5 points per task, 0.5 % perplexity)": accepted(rows["w8a8"]),
        "a 4-bit recipe passes the gate at 45 % of 16 bits or less": any(
            name in rows and accepted(rows[name]) and rows[name]["proof"]["candidate"]["size_bytes"] <= 0.45 * half
            for name in four_bit
        ),
        "mixed by sensitivity has less perplexity than uniform 4 bits by the same method at equal bytes": (
            perplexity["mixed = gptq"] < perplexity["w4a16-gptq"]
        ),
    }
    for name, passed in checks.items():
        print("PASS" if passed else "FAIL", name)
    if not all(checks.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
