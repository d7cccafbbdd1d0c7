"""How each gateway is started in front of one backend."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.environments import PEERS

__all__ = ["CONTENDERS", "Running", "free_port", "started"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

_CONFIG = """\
listen: {{host: 127.0.0.1, port: {port}}}
state: {folder}/state.db
models:
  m:
    backends: [{{url: "http://127.0.0.1:{backend}", max_in_flight: 64}}]
tenants:
  bench:
    limits:
      requests_per_minute: 100_000_000
      tokens_per_minute: 1_000_000_000_000
      vision_ms_per_minute: 1_000_000_000_000
      max_concurrent: 1000
"""
"""Everything on: keys, limits, prices, queue, health checks, breaker, retries, caches, metrics."""


@dataclass(frozen=True)
class Running:
    name: str
    url: str
    process: subprocess.Popen[bytes]


Command = Callable[[int, int, Path, Path], list[str]]
"""(port, backend's port, folder for its files, peers' environments) -> command line."""


def foveal_config(port: int, backend: int, folder: Path) -> Path:
    path = folder / "gateway.yaml"
    path.write_text(_CONFIG.format(port=port, backend=backend, folder=folder))
    return path


def create_key(config: Path) -> str:
    """A key of the tenant `bench`."""
    command = [sys.executable, "-m", "foveal.cli.app", "keys", "create", str(config), "--tenant", "bench", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    return str(found["key"])


def _foveal(port: int, backend: int, folder: Path, peers: Path) -> list[str]:
    return [sys.executable, "-m", "foveal.cli.app", "gateway", str(foveal_config(port, backend, folder))]


def _script(name: str) -> Command:
    return lambda port, backend, folder, peers: [sys.executable, str(HERE / name), str(port), str(backend)]


def _smg(*policy: str) -> Command:
    def command(port: int, backend: int, folder: Path, peers: Path) -> list[str]:
        listen = ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())]
        return [str(peers / "smg/bin/smg"), "launch", *listen, *policy, "--worker-urls", f"http://127.0.0.1:{backend}"]

    return command


def _vllm_router(*policy: str) -> Command:
    def command(port: int, backend: int, folder: Path, peers: Path) -> list[str]:
        listen = ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())]
        executable = str(peers / "vllm-router/bin/vllm-router")
        return [executable, *listen, *policy, "--worker-urls", f"http://127.0.0.1:{backend}"]

    return command


def _litellm(port: int, backend: int, folder: Path, peers: Path) -> list[str]:
    config = folder / "litellm.yaml"
    target = {"model": "openai/m", "api_base": f"http://127.0.0.1:{backend}/v1", "api_key": "none"}
    config.write_text(json.dumps({"model_list": [{"model_name": "m", "litellm_params": target}]}))
    listen = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    return [str(peers / "litellm/bin/litellm"), "--config", str(config), *listen]


_ROUND_ROBIN = ("--policy", "round_robin")
CONTENDERS: dict[str, Command] = {
    "foveal": _foveal,
    "foveal_wire_only": _script("wire_only.py"),
    "bare_proxy": _script("bare_proxy.py"),
    "smg_round_robin": _smg(*_ROUND_ROBIN),
    "smg_default": _smg(),
    "vllm_router_round_robin": _vllm_router(*_ROUND_ROBIN),
    "vllm_router_default": _vllm_router(),
    "litellm": _litellm,
}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def started(name: str, backend: int, folder: Path, peers: Path, key: str, body: bytes) -> Iterator[Running]:
    """Runs one contender; ready once it has answered `body`. Raises RuntimeError with the end of its log."""
    _check_environment(name, peers)
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    log_path = folder / "log"
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "src"),
        "NO_PROXY": "127.0.0.1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MASTER_KEY": key,  # it does not start without one
    }
    if name not in ("foveal", "foveal_wire_only", "bare_proxy"):
        del environment["PYTHONPATH"]
    command = CONTENDERS[name](port, backend, folder, peers)
    with log_path.open("wb") as log:
        # A group of its own: some of them start children, or rename themselves.
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=folder, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        _wait_for_answer(process, url, key, body, log_path)
        yield Running(name, url, process)
    finally:
        _stop(process)


def _check_environment(name: str, peers: Path) -> None:
    """Raises RuntimeError, in words without this machine's paths, where a peer was not installed."""
    peer = next((peer for peer in PEERS if name.startswith(peer.replace("-", "_"))), None)
    if peer is None:
        return
    status_file = peers / peer / "status.json"
    if not status_file.exists():
        raise RuntimeError(
            f"{peer} was not installed; run benchmarks/gateway/environments.py, and give its folder as --peers"
        )
    status = json.loads(status_file.read_text())
    if not status["ok"]:
        raise RuntimeError(f"{status['requirement']} could not be installed: {status['error']}")


def _wait_for_answer(process: subprocess.Popen[bytes], url: str, key: str, body: bytes, log_path: Path) -> None:
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    deadline = time.monotonic() + 90
    reason = "no answer"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            reason = f"it exited with {process.returncode}"
            break
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
                if answer.status == 200:
                    return
        except urllib.error.HTTPError as error:
            reason = f"{error.code}: {error.read()[:300]!r}"
        except OSError as error:
            reason = str(error)
        time.sleep(0.25)
    raise RuntimeError(f"not ready ({reason}); its log ends: {log_path.read_text(errors='replace')[-800:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
            if number is signal.SIGTERM:
                continue
            return
