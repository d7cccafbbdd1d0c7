"""Run one of our modules in a process of its own, with as many threads as this one."""

from __future__ import annotations

import os
import subprocess
import sys

import torch

from foveal.core.errors import ModelLoadError

__all__ = ["run_fresh"]

_TIMEOUT_S = 1800


def run_fresh(module: str, *arguments: str, failure: str) -> str:
    """What `python -m module arguments` prints. Raises ModelLoadError, `failure` and the process's last words, when it
    fails or hangs for half an hour."""
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelLoadError(
            f"{failure}: it did not end within {_TIMEOUT_S} s. Check how busy the machine is."
        ) from error
    if done.returncode:
        told = " ".join(done.stderr.strip().splitlines()[-1:]) or f"exit status {done.returncode}"
        raise ModelLoadError(f"{failure}: {told.removeprefix('error: ')}")
    return done.stdout
