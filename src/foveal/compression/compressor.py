"""Compress a model: block by block in the order they run, each with the outputs of the rounded ones before it.

Peak memory is the model in float32, the hidden states of the calibration samples, and one block's second moments.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from foveal.artifacts.model_files import source_digest
from foveal.compression.block_files import BlockFiles
from foveal.compression.calibration import CalibrationSet
from foveal.compression.calibration_inputs import prepare_samples
from foveal.compression.compression_run import CompressionRun, Progress
from foveal.compression.groups import layout_of
from foveal.compression.model_walk import ModelWalk
from foveal.compression.prefill import PrefillBatch, make_batches
from foveal.compression.recipe import Recipe, Rule
from foveal.compression.recipe_resolution import rules_by_module
from foveal.compression.records import CompressionResult
from foveal.core.errors import ConfigurationError
from foveal.models.loading import load_model, load_processor

__all__ = ["Progress", "compress", "job_digest", "stored_dtype"]

_PROBE_SAMPLES = 32
_CODE_VERSION = 1
"""Raised when the same inputs would give other results, so that files of older runs are not mixed in."""


def job_digest(source: str, recipe: Recipe, calibration: CalibrationSet | None) -> str:
    """SHA-256, hex, of all that decides the result: model, recipe and calibration data."""
    parts = [_CODE_VERSION, source, recipe.digest, None if calibration is None else calibration.digest]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def compress(
    model_dir: str | Path,
    recipe: Recipe,
    calibration: CalibrationSet | None,
    work_dir: str | Path,
    *,
    source: str | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    resume: bool = True,
) -> CompressionResult:
    """Quantise the checkpoint in `model_dir` as `recipe` says. Nothing is written but finished blocks, in `work_dir`.

    `calibration` may be None for recipes that need no data (RTN, NF4, FP8); then no losses are measured. `source` is the
    model's digest where the caller knows it. Interrupted and called again with the same arguments, it takes finished
    blocks from `work_dir` and ends with the same bits. Raises ConfigurationError (data unfit, nothing quantised, 2 bits),
    ModelLoadError and StorageError.
    """
    model = load_model(model_dir, dtype="float32", decoder="hf")
    network = model.hf_model
    rules = rules_by_module(recipe, layout_of(network))
    if calibration is None:
        _refuse_without_data(rules)
        batches: list[PrefillBatch] = []
        probes: list[PrefillBatch] = []
    else:
        calibration.refuse_unfit(supports_images=model.spec.supports_images)
        batches, probes = _batches(model_dir, calibration)
    job = job_digest(source or source_digest(Path(model_dir)), recipe, calibration)
    walk, files = ModelWalk(model, batches), BlockFiles(Path(work_dir), job)
    run = CompressionRun(walk, rules, stored_dtype(model_dir), files, progress, resume=resume)
    with torch.inference_mode():
        weight, losses = run.image_weight(recipe, ModelWalk(model, probes))
        run.everything(weight)
    records = {record.name: record for record in run.result.records}
    if not run.result.weights:
        wanted = [name for name, rule in rules.items() if rule.scheme is not None]
        reasons = sorted({str(records[name].kept_reason) for name in wanted})
        raise ConfigurationError(
            f"recipe {recipe.name} wants {len(wanted)} matrices quantised, and none could be: {'; '.join(reasons)}. "
            "Choose a recipe, or a model, that fits."
        )
    ordered = {name: records[name] for name, _ in network.named_modules() if name in records}
    result = run.result
    return CompressionResult(
        result.weights,
        result.schemes,
        result.static_inputs,
        result.replaced,
        ordered | records,
        weight,
        losses,
        recipe.warnings,
    )


def _batches(model_dir: str | Path, calibration: CalibrationSet) -> tuple[list[PrefillBatch], list[PrefillBatch]]:
    """(all batches, a subset for trials)."""
    prepared = prepare_samples(calibration.samples, load_processor(model_dir))
    fit, held = calibration.split()
    few = max(2, _PROBE_SAMPLES // 2)

    def batches(fitted: Sequence[int], judged: Sequence[int]) -> list[PrefillBatch]:
        parts = [
            make_batches([prepared[index] for index in part], held_out)
            for part, held_out in ((fitted, False), (judged, True))
        ]
        return parts[0] + parts[1]

    return batches(fit, held), batches(fit[:_PROBE_SAMPLES], held[:few])


def _refuse_without_data(rules: Mapping[str, Rule]) -> None:
    needing = next((name for name, rule in rules.items() if rule.needs_inputs), None)
    if needing is not None:
        raise ConfigurationError(
            f"method {rules[needing].method} for {needing} needs calibration data, and there is none. Give image-text "
            "pairs, use the rendered tasks, or choose a recipe without data (nf4, int8 by rtn)."
        )


def stored_dtype(model_dir: str | Path) -> torch.dtype:
    """The type of the checkpoint's weights, as its config says; folded norms are rounded to it."""
    values = json.loads((Path(model_dir) / "config.json").read_text())
    text = values.get("text_config") or {}
    name = next((v.get(key) for v in (values, text) for key in ("dtype", "torch_dtype") if v.get(key)), "float32")
    return getattr(torch, str(name).removeprefix("torch."), torch.float32)
