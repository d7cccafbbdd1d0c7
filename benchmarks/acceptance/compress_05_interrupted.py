"""Killed in the middle, a full disk, unreadable input: nothing half-written under the final name, and a rerun that resumes.

    python benchmarks/acceptance/compress_05_interrupted.py --model .demo/foveal-demo --folder .demo/interrupted

A run is ended with SIGKILL after some blocks and started again; weights and passport must equal those of a run that was
left alone, bit for bit. The full disk is a small tmpfs, where this user may mount one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from harness_path import ROOT  # noqa: F401 - makes harness importable

RECIPE = "w4a16-gptq"


def command(model: Path, output: Path, recipe: str = RECIPE) -> list[str]:
    return [
        sys.executable, "-W", "ignore", "-m", "foveal.cli.app", "compress", str(model),
        "--recipe", recipe, "--samples", "32", "--output", str(output), "--json",
    ]  # fmt: skip


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def finished_blocks(folder: Path) -> int:
    return sum(1 for path in folder.glob("*.partial/.staging/**/*.safetensors"))


def killed_and_resumed(model: Path, folder: Path) -> dict[str, object]:
    alone, killed = folder / "alone", folder / "killed"
    began = time.perf_counter()
    subprocess.run(command(model, alone), check=True, capture_output=True)
    whole = time.perf_counter() - began
    run = subprocess.Popen(command(model, killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while run.poll() is None and time.perf_counter() - began < whole * 1.55:
        time.sleep(0.1)
    assert run.poll() is None, "the run ended before it could be killed"
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not killed.exists(), "a killed run left something under the final name"
    found = finished_blocks(folder)
    began = time.perf_counter()
    subprocess.run(command(model, killed), check=True, capture_output=True)
    resumed = time.perf_counter() - began
    ours, theirs = digests(alone), digests(killed)
    assert ours == theirs, {name: (ours.get(name), theirs.get(name)) for name in ours if ours[name] != theirs.get(name)}
    return {"whole_s": round(whole, 1), "resumed_s": round(resumed, 1), "files_kept": found, "equal_files": len(ours)}


def full_disk(model: Path, folder: Path) -> str:
    disk = folder / "small-disk"
    disk.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", disk], capture_output=True).returncode:
        return "not run: this user may not mount a tmpfs"
    try:
        run = subprocess.run(command(model, disk / "out", "rtn4"), capture_output=True, text=True, check=False)
        assert run.returncode, "a full disk went unnoticed"
        assert not (disk / "out").exists(), "a half-written artefact under the final name"
        return last_line(run.stderr)
    finally:
        subprocess.run(["umount", disk], check=True)


def unreadable(model: Path, folder: Path) -> str:
    broken = folder / "broken"
    shutil.rmtree(broken, ignore_errors=True)
    shutil.copytree(model, broken)
    weights = broken / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    run = subprocess.run(command(broken, folder / "from-broken", "rtn4"), capture_output=True, text=True, check=False)
    assert run.returncode, "a truncated source was compressed"
    assert not (folder / "from-broken").exists()
    shutil.rmtree(broken)
    return last_line(run.stderr)


def last_line(text: str) -> str:
    lines = text.strip().splitlines()
    assert not any(line.startswith("Traceback") for line in lines), text
    return lines[-1]


def main() -> None:
    from harness.record import write_result

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    figures: dict[str, object] = {}
    for check in (unreadable, full_disk, killed_and_resumed):
        figures[check.__name__] = check(options.model, options.folder)
        print(check.__name__, json.dumps(figures[check.__name__]), flush=True)
    shutil.rmtree(options.folder)
    print("written to", write_result("acceptance_compress_05_interrupted", figures))


if __name__ == "__main__":
    main()
