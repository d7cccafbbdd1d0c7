"""Takes the learning curve out of a training folder: `python benchmarks/demo_model/export_curve.py RUN learning_curve.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

NOTE = (
    "Exact match (%) on at most 90 held-out pictures per point, answers forced, int8 products as in training; "
    "a handful of questions per task, so single points jump by ten and more. accuracy.json has the real table."
)


def main(run: Path, target: Path) -> None:
    curve = json.loads((run / "curve.json").read_text())
    target.write_text(json.dumps({"note": NOTE, "curve": curve}, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
