"""Does a checkpoint that was just written load again, in a fresh process, and answer the same?

    python -m foveal.compression.formats.reload_check DIRECTORY PROBE

Loads DIRECTORY with our loader and, where plain transformers can read its layout, with transformers alone; prints one JSON
object and exits with 0 if both fit the probe and each other. Writing a name that no reader maps loads as NaN or as random
numbers with nothing but a log line: this is where it is caught.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from foveal.compression.formats.plain_transformers import (
    load_plain,
    needs_dequantising,
    switch_off_rounding,
    unreadable_reason,
)
from foveal.compression.formats.reload_probe import ReloadProbe
from foveal.core.errors import FovealError, ModelLoadError
from foveal.models.loading import load_checkpoint
from foveal.models.quantised.rounded_linear import RoundedInputLinear

__all__ = ["ReloadReport", "verify_reload"]

EXACT = 1e-4
"""Largest relative difference |a - b| / |b| of logits where both compute the same in float32."""
ROUNDED = 2e-2
"""The same where inputs are rounded: the order of a sum decides which way a value on the edge goes."""
HALF = 1e-2
"""The same where compressed-tensors dequantises in float16 (asymmetric weights)."""


@dataclass(frozen=True)
class ReloadReport:
    """Relative differences of logits."""

    foveal: float
    """Our loader against the probe."""
    transformers: float | None = None
    """transformers against our loader, inputs of both unrounded (the two round them differently)."""
    transformers_skipped: str | None = None
    """Why transformers was not asked."""


def verify_reload(out_dir: str | Path, probe: ReloadProbe, *, timeout_s: float = 1800) -> ReloadReport:
    """Check `out_dir` in a process of its own. Raises ModelLoadError with what did not fit."""
    with tempfile.TemporaryDirectory(prefix="foveal-reload-") as folder:
        path = Path(folder) / "probe.safetensors"
        probe.save(path)
        command = [sys.executable, "-m", __spec__.name, str(out_dir), str(path)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=timeout_s, env=os.environ | {"HF_HUB_OFFLINE": "1"}
            )
        except subprocess.TimeoutExpired as error:
            raise ModelLoadError(f"{out_dir} did not load again within {timeout_s:g} s. Check it by hand.") from error
    try:
        result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        reason = " ".join(done.stderr.split())[-500:]
        raise ModelLoadError(f"{out_dir} did not load again (exit code {done.returncode}: {reason})") from error
    if "error" in result:
        raise ModelLoadError(f"{out_dir} was written, but does not load as it should: {result['error']}")
    return ReloadReport(**result)


def check(directory: Path, probe: ReloadProbe) -> ReloadReport:
    """The check itself, in this process. Raises ModelLoadError."""
    ours = load_checkpoint(directory, dtype="float32")
    rounded = [module for module in ours.model.modules() if isinstance(module, RoundedInputLinear)]
    logits = _logits(ours.model, probe, "our loader")
    foveal = _difference(
        logits, probe.logits, ROUNDED if rounded else EXACT, "our loader", "the model that was written"
    )
    reason = unreadable_reason(directory, ours)
    if reason is not None:
        return ReloadReport(foveal, None, reason)
    for module in rounded:
        module.input_rounding = torch.nn.Identity()
    expected = _logits(ours.model, probe, "our loader") if rounded else logits
    dequantise = needs_dequantising(directory)
    plain = load_plain(directory, ours.family, dequantise=dequantise)
    if rounded:
        _logits(plain, probe, "transformers")  # compressed-tensors unpacks weights at the first call
        switch_off_rounding(plain)
    found = _logits(plain, probe, "transformers")
    return ReloadReport(
        foveal, _difference(found, expected, HALF if dequantise else EXACT, "transformers", "our loader")
    )


@torch.inference_mode()
def _logits(model: PreTrainedModel, probe: ReloadProbe, reader: str) -> torch.Tensor:
    logits = model(**probe.inputs).logits.float()
    if not torch.isfinite(logits).all():
        raise ModelLoadError(f"read by {reader}, the model answers NaN or infinity")
    return logits


def _difference(found: torch.Tensor, expected: torch.Tensor, limit: float, reader: str, other: str) -> float:
    difference = float((found - expected).norm() / expected.norm())
    if not difference <= limit:
        raise ModelLoadError(
            f"read by {reader}, logits differ from those of {other} by {difference:.2g} of their size; the limit is {limit}"
        )
    return difference


def _main(directory: str, probe: str) -> int:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        result = asdict(check(Path(directory), ReloadProbe.load(Path(probe))))
    except FovealError as error:
        result = {"error": str(error)}
    print(json.dumps(result))
    return int("error" in result)


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:3]))
