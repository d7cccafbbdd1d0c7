"""An engine in a process of its own: asked by lines of JSON, frozen while others are measured."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from foveal.core.errors import FovealError

__all__ = ["EngineProcess", "PeerError"]

HOST = Path(__file__).with_name("host.py")


class PeerError(FovealError):
    """An engine that is compared with refused or died. What it said is the message."""


class EngineProcess:
    """Starts at once. Use it as a context manager: leaving ends the process and what it started."""

    def __init__(self, python: str, runner: str, *, threads: int) -> None:
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        if python != sys.executable:
            # What our interpreter finds there must not get into theirs.
            environment.pop("PYTHONPATH", None)
        self._process = subprocess.Popen(
            [python, str(HOST), runner],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            env=environment,
            start_new_session=True,
        )
        self._frozen = False

    def ask(self, operation: str, **fields: Any) -> dict[str, Any]:
        """Raises PeerError with the engine's own words."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._process.stdin.closed:
            raise PeerError(f"the process was closed before it was asked to {operation}")
        self.thaw()
        try:
            self._process.stdin.write(json.dumps({"op": operation, **fields}).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise PeerError(f"the process ended with {self._process.wait()} while asked to {operation}: {self._last()}")
        reply: dict[str, Any] = json.loads(line)
        if not reply.pop("ok"):
            raise PeerError(reply["error"])
        return reply

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> dict[str, Any]:
        """wall_s, cpu_s and token_ids. Raises PeerError."""
        return self.ask("generate", prompts=[list(ids) for ids in prompts], new_tokens=new_tokens)

    def freeze(self) -> None:
        """Stop all its threads until it is asked again: some engines' threads spin while they wait."""
        if not self._frozen:
            self._signal(signal.SIGSTOP)
            self._frozen = True

    def thaw(self) -> None:
        if self._frozen:
            self._signal(signal.SIGCONT)
            self._frozen = False

    def close(self) -> None:
        """Idempotent."""
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._words):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def _signal(self, number: signal.Signals) -> None:
        # The group is the process's own: it was started in a new session.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _last(self) -> str:
        self._words.seek(0)
        return self._words.read().decode(errors="replace").strip()[-1500:] or "it said nothing"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
