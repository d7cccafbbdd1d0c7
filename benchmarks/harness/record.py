"""What every result file says besides its figures: machine, commit, command, versions."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "machine", "this_run", "write_result"]

_FOLDERS = re.compile(r"(?:^|(?<=:))(?:/(?!/)|~/).*/(?=[^/])")
"""Of an absolute path, also of one behind `draft:`."""
RESULTS = Path(__file__).parents[1] / "results"


def machine() -> dict[str, Any]:
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    flags = Path("/proc/cpuinfo").read_text()
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "vector_units": [
            name for name in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if name in flags
        ],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "load_average": round(os.getloadavg()[0], 2),
    }


def this_run() -> dict[str, str]:
    """Command, commit and date."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    # Paths without their folders: those are this machine's.
    given = [_FOLDERS.sub("", argument) for argument in sys.argv[1:]]
    command = " ".join(["python", os.path.relpath(sys.argv[0]), *given])
    return {"command": command, "commit": commit, "date": time.strftime("%Y-%m-%d")}


def write_result(name: str, figures: Any) -> Path:
    """benchmarks/results/<name>.json"""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({**this_run(), "machine": machine(), "figures": figures}, indent=1) + "\n")
    return path
