"""Processor time and memory of a process and its children, from /proc (Linux)."""

from __future__ import annotations

from pathlib import Path

import psutil

__all__ = ["peak_bytes", "processor_s", "reset_peak", "resident_bytes"]


def _tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def processor_s(pid: int) -> float:
    """User and system time so far, all threads, seconds (in steps of 10 ms)."""
    return sum(times.user + times.system for times in (process.cpu_times() for process in _tree(pid)))


def resident_bytes(pid: int) -> int:
    return sum(process.memory_info().rss for process in _tree(pid))


def reset_peak(pid: int) -> None:
    """From here on `peak_bytes` starts anew."""
    for process in _tree(pid):
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def peak_bytes(pid: int) -> int:
    """Largest resident size since `reset_peak` (VmHWM)."""
    total = 0
    for process in _tree(pid):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                total += int(line.split()[1]) * 1024
    return total
