"""Run `foveal serve` on a free loopback port for the time of a `with` block."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Server", "free_port", "running_server"]


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen[bytes]
    start_s: float

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=30) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def model(self) -> str:
        return json.loads(self.get("/v1/models")[1])["data"][0]["id"]

    def wait_ready(self, timeout_s: float = 300.0) -> None:
        """Raises RuntimeError if the server exits or does not get ready in time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server exited with code {self.process.returncode}")
            with contextlib.suppress(OSError):
                if self.get("/ready")[0] == 200:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"the server was not ready after {timeout_s:.0f} s")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def running_server(model: str, *flags: str, log: str | None = None) -> Iterator[Server]:
    """SIGTERM at the end; SIGKILL after 60 s."""
    port = free_port()
    command = [sys.executable, "-m", "foveal.cli.app", "serve", model, "--port", str(port), *flags]
    started = time.monotonic()
    with open(log or os.devnull, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            server = Server(f"http://127.0.0.1:{port}", process, started)
            server.wait_ready()
            yield Server(server.url, process, time.monotonic() - started)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
