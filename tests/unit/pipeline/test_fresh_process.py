"""What a process of its own is told, and what it tells."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from foveal.core.errors import ModelLoadError
from foveal.pipeline import fresh_process
from foveal.pipeline.fresh_process import run_fresh
from foveal.pipeline.running_cost import peak_memory_bytes


def test_peak_memory_is_that_of_the_process_and_not_what_its_parent_once_held() -> None:
    held = bytearray(600_000_000)
    held[::4096] = b"x" * len(held[::4096])
    asked = "from foveal.pipeline.running_cost import peak_memory_bytes; print(peak_memory_bytes())"
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    assert int(told) < len(held) < peak_memory_bytes()


def test_it_has_as_many_threads_as_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def run(command: list[str], *, env: dict[str, str], **_: object) -> subprocess.CompletedProcess[str]:
        seen.append(env["OMP_NUM_THREADS"])
        return subprocess.CompletedProcess(command, 0, "told", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert run_fresh("some.module", failure="no") == "told"
    assert seen == ["3"]


def test_one_that_hangs_is_an_error_with_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh_process, "_TIMEOUT_S", 0.01)
    with pytest.raises(ModelLoadError, match=r"it does not load: it did not end within 0\.01 s"):
        run_fresh("this", failure="it does not load")
