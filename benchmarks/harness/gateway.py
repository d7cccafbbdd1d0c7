"""`foveal gateway` and backends of known capacity as processes, for the time of a `with` block."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from harness.server import Server, free_port

__all__ = ["GatewayProcess", "PacedBackend", "counters", "paced_backends", "running_gateway"]

_BACKEND = Path(__file__).parent / "paced_backend.py"


@dataclass
class PacedBackend:
    """See paced_backend.py. `kill`, `freeze` and `start` may come in any order."""

    name: str
    slots: int
    service_ms: float
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, str(_BACKEND), "--port", str(self.port), "--slots", str(self.slots)]
        self.process = subprocess.Popen([*command, "--service-ms", str(self.service_ms), "--log", str(self.log)])

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def events(self) -> dict[str, int]:
        """begin, end, left -> how often, over all lives of the process."""
        return {event: len(self.request_ids(event)) for event in ("begin", "end", "left")}

    def request_ids(self, event: str) -> list[str]:
        """X-Request-Id of each request of which the log says `event`."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line.split(" ")[3] for line in lines if line.startswith(event + " ")]


@contextlib.contextmanager
def paced_backends(count: int, slots: int, service_ms: float) -> Iterator[list[PacedBackend]]:
    with tempfile.TemporaryDirectory() as folder:
        backends = [
            PacedBackend(f"b{number}", slots, service_ms, free_port(), Path(folder) / f"b{number}.log")
            for number in range(count)
        ]
        for backend in backends:
            backend.start()
        try:
            yield backends
        finally:
            for backend in backends:
                backend.kill()


@dataclass(frozen=True)
class GatewayProcess:
    server: Server
    log: Path
    config: Path

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def pid(self) -> int:
        return self.server.process.pid

    def rewrite(self, config: Mapping[str, Any]) -> None:
        """A new configuration and SIGHUP; returns once the log says that it is in force."""
        before = self.log.read_text().count("configuration reloaded")
        self.config.write_text(yaml.safe_dump(dict(config)))
        self.server.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 30
        while self.log.read_text().count("configuration reloaded") == before:
            if time.monotonic() > deadline:
                raise RuntimeError(f"no reload after 30 s: {self.log.read_text()[-500:]}")
            time.sleep(0.02)

    def samples(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Everything that /metrics says: (name, sorted labels) -> value."""
        text = self.server.get("/metrics")[1].decode()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


def counters(gateway: GatewayProcess, name: str, by: Sequence[str] = ()) -> dict[tuple[str, ...], float]:
    """Sums of a counter, grouped by labels."""
    sums: dict[tuple[str, ...], float] = {}
    for (found, labels), value in gateway.samples().items():
        if found == name:
            key = tuple(dict(labels)[label] for label in by)
            sums[key] = sums.get(key, 0.0) + value
    return sums


@contextlib.contextmanager
def running_gateway(config: Mapping[str, Any], *, wait_ready: bool = True) -> Iterator[GatewayProcess]:
    """SIGTERM at the end; SIGKILL after 60 s."""
    with tempfile.TemporaryDirectory() as folder:
        path, log = Path(folder) / "gateway.yaml", Path(folder) / "gateway.log"
        path.write_text(yaml.safe_dump(dict(config)))
        port = free_port()
        command = [sys.executable, "-m", "foveal.cli.app", "gateway", str(path), "--port", str(port)]
        started = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, env=dict(os.environ)
            )
        server = Server(f"http://127.0.0.1:{port}", process, started)
        try:
            if wait_ready:
                try:
                    server.wait_ready(60)
                except RuntimeError as error:
                    raise RuntimeError(f"{error}: {log.read_text()[-2000:]}") from error
            yield GatewayProcess(server, log, path)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
