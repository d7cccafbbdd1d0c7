"""wrk, with its figures as JSON instead of text."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Load", "run_wrk", "write_script"]

_SCRIPT = """\
local file = io.open("%s", "rb")
wrk.body = file:read("*a")
file:close()
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer %s"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nFIGURES {"requests": %%d, "seconds": %%.6f, "errors": %%d, "p50_us": %%d, "p90_us": %%d, "p99_us": %%d}\\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Load:
    """One run of wrk. `errors` counts broken connections, time-outs and answers other than 2xx or 3xx."""

    requests: int
    seconds: float
    errors: int
    p50_us: float
    p90_us: float
    p99_us: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def write_script(path: Path, body: Path, key: str) -> Path:
    path.write_text(_SCRIPT % (body, key))
    return path


def run_wrk(url: str, script: Path, concurrency: int, seconds: int, threads: int = 1) -> Load:
    """Raises RuntimeError if wrk cannot be run."""
    threads = min(threads, concurrency)
    options = ["-t", str(threads), "-c", str(concurrency), "-d", f"{seconds}s", "--timeout", "20s", "-s", str(script)]
    done = subprocess.run(["wrk", *options, url], capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("FIGURES "):
            return Load(**json.loads(line[8:]))
    raise RuntimeError(f"wrk failed on {url}: {done.stdout[-500:]}{done.stderr[-500:]}")
