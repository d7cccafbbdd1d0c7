"""A Prometheus of our own on a free loopback port, for the time of a `with` block."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.server import free_port

__all__ = ["Prometheus", "Series", "running_prometheus"]

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Series:
    labels: Mapping[str, str]
    times_s: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class Prometheus:
    url: str

    def range(self, query: str, start_s: float, end_s: float, step_s: float = 1.0) -> list[Series]:
        """Raises RuntimeError for a query that it refuses."""
        answer = self._get("query_range", query=query, start=f"{start_s:.3f}", end=f"{end_s:.3f}", step=f"{step_s:g}")
        return [
            Series(
                {name: value for name, value in one["metric"].items() if name != "__name__"},
                [float(at) for at, _ in one["values"]],
                [float(value) for _, value in one["values"]],
            )
            for one in answer["result"]
        ]

    def alerts(self) -> dict[str, str]:
        """Alert -> pending or firing, now."""
        return {one["labels"]["alertname"]: one["state"] for one in self._get("alerts")["alerts"]}

    def _get(self, path: str, **query: str) -> Any:
        try:
            with urllib.request.urlopen(
                f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=60
            ) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{query.get('query', path)}: {error.read().decode()}") from None


@contextlib.contextmanager
def running_prometheus(targets: Mapping[str, Sequence[str]], rules: Path | None = None) -> Iterator[Prometheus]:
    """Scrapes `targets` (job -> host:port) each second. The binary comes from .ci/prometheus."""
    directory = subprocess.run(
        [_ROOT / ".ci" / "prometheus"], check=True, capture_output=True, text=True
    ).stdout.strip()
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)] if rules else [],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": list(addresses)}]} for job, addresses in targets.items()
        ],
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "prometheus.yml").write_text(yaml.safe_dump(config))
        port = free_port()
        command = [
            f"{directory}/prometheus",
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        process = subprocess.Popen(command)
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_ready(url, process)
            yield Prometheus(url)
        finally:
            process.terminate()
            process.wait(30)


def _wait_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"Prometheus exited with code {process.returncode}")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/-/ready", timeout=5):
            return
        time.sleep(0.1)
    raise RuntimeError("Prometheus was not ready after 60 s")
