"""The seam to the operating system: start a process, wait for its end, end it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

__all__ = ["ChildProcess", "launch"]


class ChildProcess(Protocol):
    pid: int

    async def wait(self) -> int:
        """Exit status; negative is the signal that ended it."""
        ...

    def terminate(self) -> None:
        """Ask it to end. No error if it is gone."""
        ...

    def kill(self) -> None:
        """End it and what it started. No error if it is gone."""
        ...


async def launch(command: Sequence[str], environment: Mapping[str, str], log: Path | None) -> ChildProcess:
    """In a session of its own, so that a Ctrl-C in the terminal reaches only us: we end it after the last request.

    If we die without a chance to say so, the kernel ends it. Raises OSError.
    """
    output = None
    try:
        if log is not None:
            output = log.open("ab")
        process = await asyncio.create_subprocess_exec(
            *command,
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
    finally:
        if output is not None:
            output.close()
    return _Process(process)


class _Process:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def wait(self) -> int:
        return await self._process.wait()

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
