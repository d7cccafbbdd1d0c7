"""A calibration as tables: the terms of the model, and every measured step beside what the model says."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from foveal.planning.latency.fit import FitError
from foveal.planning.latency.latency_file import Calibration
from foveal.planning.latency.latency_model import STEP_TERMS, VISION_TERMS

__all__ = ["calibration_tables"]


def calibration_tables(calibration: Calibration) -> Iterator[Table]:
    key = calibration.key
    terms = Table(
        title=f"{calibration.model_name}: {key.quantize if key.quantize != 'none' else key.dtype} weights, {key.kv_dtype} "
        f"KV, {key.decoder} decoder, {key.threads} thread(s)",
        caption=f"{key.cpu}; memory read at {calibration.bandwidth_bytes_s / 1e9:.1f} GB/s beside; {calibration.rounds} "
        f"rounds in {calibration.seconds:.0f} s",
    )
    terms.add_column("term")
    terms.add_column("us per unit", justify="right")
    for name, seconds in zip(STEP_TERMS, calibration.model.step, strict=True):
        terms.add_row(name, f"{seconds * 1e6:,.3f}")
        if name == "fixed":
            terms.add_row("  of which reading weights", f"{calibration.weights_s * 1e6:,.3f}")
    if calibration.model.vision is not None:
        for name, seconds in zip(VISION_TERMS, calibration.model.vision, strict=True):
            terms.add_row(f"encode: {name}", f"{seconds * 1e6:,.3f}")
    yield terms

    steps = Table(title="measured and predicted", caption=_errors(calibration))
    for column in ("step", "", "measured ms", "predicted ms", "error", "noise"):
        steps.add_column(column, justify="left" if column in ("step", "") else "right")
    for step in sorted(calibration.steps, key=lambda step: step.held_out):
        predicted = calibration.model.step_s(step.work)
        steps.add_row(
            step.name,
            "held out" if step.held_out else "",
            f"{step.seconds * 1e3:.2f}",
            f"{predicted * 1e3:.2f}",
            f"{predicted / step.seconds - 1:+.1%}",
            f"{step.spread:.1%}",
        )
    yield steps


def _errors(calibration: Calibration) -> str:
    return "; ".join(
        f"{name}, {error.points} held-out steps: median {error.median:.1%}, P90 {error.p90:.1%} (noise {error.noise:.1%})"
        for name, error in (("decoder", calibration.decoder_error), ("vision", calibration.vision_error))
        if isinstance(error, FitError)
    )
