"""Point 9 of the list of speed: the ablation table (mission row B1), every row from one run.

    python benchmarks/acceptance/speed_09_ablation.py --model .demo/foveal-demo --speculate draft:.demo/foveal-draft

More flags go to `foveal bench ablation`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import harness_path  # noqa: F401 - finds `harness`
from harness.record import write_result

from foveal.pipeline.ablation.stages import ladder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    options, flags = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "ablation.json"
        command = [
            sys.executable,
            "-m",
            "foveal.cli.app",
            "bench",
            "ablation",
            options.model,
            "--json",
            str(out),
            *flags,
        ]
        subprocess.run(command, check=True)
        report = json.loads(out.read_text())
    rows, rounds = report["rows"], report["rounds"]
    passes = {(one["stage"], one["round"]) for one in report["passes"]}
    checks = {
        f"all {len(ladder(1))} stages are there": len(rows) == len(ladder(1)),
        "every stage was measured in every round of this run": passes
        == {(row["stage"], number) for row in rows for number in range(rounds)},
        "at least 5 rounds": rounds >= 5,
        f"the last stage is faster than the first ({rows[-1]['over_the_first']:.2f}x)": rows[-1]["over_the_first"] > 1,
    }
    for name, passed in checks.items():
        print("PASS" if passed else "FAIL", name)
    for row in rows[1:]:
        if row["over_the_stage_before"] < 1:
            print(f"      slower than the stage before: {row['stage']} ({row['over_the_stage_before']:.2f}x)")
    print("written to", write_result("ablation", report))
    if not all(checks.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
