"""The passport of a freshly compressed model."""

from __future__ import annotations

import math
from importlib.metadata import version
from pathlib import Path

from foveal.artifacts.file_digests import digest_files
from foveal.artifacts.model_files import model_files, weight_bytes
from foveal.artifacts.passport import Calibration, LinearEntry, Passport, Sizes, Source
from foveal.compression.calibration import CalibrationSet
from foveal.compression.recipe import Recipe
from foveal.compression.records import CompressionResult, LinearRecord
from foveal.kernels.quantisation.error_analysis import layer_error

__all__ = ["make_passport", "tool_versions"]

_TOOLS = ("foveal", "torch", "transformers", "safetensors", "numpy")


def make_passport(
    source_dir: Path,
    source: str,
    directory: Path,
    recipe: Recipe,
    calibration: CalibrationSet | None,
    result: CompressionResult,
) -> Passport:
    """Of the finished checkpoint in `directory`. Holds no time, no path and no machine: the same job, the same digest."""
    return Passport(
        source=Source(name=source_dir.resolve().name, digest=source),
        recipe=recipe.to_dict() | {"digest": recipe.digest, "image_weight_used": result.image_weight},
        calibration=None
        if calibration is None
        else Calibration(digest=calibration.digest, samples=len(calibration), kind=calibration.kind),
        linears={name: _entry(record, result) for name, record in result.linears.items()},
        sizes=Sizes(source_bytes=weight_bytes(source_dir), bytes=weight_bytes(directory)),
        files=digest_files(directory, model_files(directory)),
        tools=tool_versions(),
    )


def tool_versions() -> dict[str, str]:
    """Of the packages whose arithmetic and file formats decide the bytes of an artefact."""
    return {name: version(name) for name in _TOOLS}


def _entry(record: LinearRecord, result: CompressionResult) -> LinearEntry:
    scheme = result.schemes.get(record.name)
    return LinearEntry(
        component=record.component,
        scheme=record.scheme_name,
        method=record.method,
        bits=scheme.weight.bits if scheme is not None else None,
        kept_reason=record.kept_reason,
        bytes_before=record.bytes_before,
        bytes_after=record.bytes_after,
        loss=record.loss,
        rtn_loss=record.rtn_loss,
        sqnr_db=record.sqnr_db,
        theory_sqnr_db=_theory_sqnr_db(record.name, result),
        note=record.note,
    )


def _theory_sqnr_db(name: str, result: CompressionResult) -> float | None:
    """Power of the stored weight over the error that its own grid promises."""
    quantised = result.weights.get(name)
    if quantised is None:
        return None
    stored = quantised.dequantise()
    power, expected = stored.double().square().mean().item(), layer_error(name, stored, quantised).theory_mse
    return round(10 * math.log10(power / expected), 4) if power > 0 and expected > 0 else None
