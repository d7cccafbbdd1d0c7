"""Compress a model: block by block in the order they run, each with the outputs of the rounded ones before it.

Peak memory is the model in float32, the hidden states of the calibration samples, and one block's second moments.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from foveal.artifacts.model_files import source_digest
from foveal.compression.block_compressor import (
    LinearPlan,
    compress_block,
    kept_record,
    needs_inputs,
    put_in_place,
    sqnr_db,
)
from foveal.compression.block_files import BlockFiles
from foveal.compression.calibration import CalibrationSet
from foveal.compression.calibration_inputs import prepare_samples
from foveal.compression.capture import Block, BlockRun, collect_statistics
from foveal.compression.components import component_of, matrices, module_name, structural_reason
from foveal.compression.groups import fitting, layout_of
from foveal.compression.methods.rtn import rtn
from foveal.compression.model_walk import ModelWalk
from foveal.compression.objective import find_image_weight
from foveal.compression.prefill import PrefillBatch, make_batches
from foveal.compression.recipe import Recipe, Rule
from foveal.compression.recipe_resolution import rules_by_module
from foveal.compression.records import BlockResult, CompressionResult, LinearRecord
from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.scheme import LinearScheme
from foveal.models.loading import load_model, load_processor

__all__ = ["Progress", "compress", "job_digest"]

_PROBE_SAMPLES = 32
_CODE_VERSION = 1
"""Raised when the same inputs would give other results, so that files of older runs are not mixed in."""


@dataclass(frozen=True)
class Progress:
    """After each block: `done` of `total`, its name, seconds it took; `resumed` if it was read from a file."""

    done: int
    total: int
    name: str
    seconds: float
    resumed: bool


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
    run = _Compression(
        ModelWalk(model, batches), rules, _stored_dtype(model_dir), BlockFiles(Path(work_dir), job), progress
    )
    run.resume = resume
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


class _Compression:
    """One run: what is fixed for all blocks, and what has been found so far."""

    def __init__(
        self,
        walk: ModelWalk,
        rules: Mapping[str, Rule],
        stored_dtype: torch.dtype,
        files: BlockFiles,
        progress: Callable[[Progress], None],
    ) -> None:
        self.walk = walk
        self.network = walk.model.hf_model
        self.rules = rules
        self.stored_dtype = stored_dtype
        self.source_bytes = stored_dtype.itemsize
        self.files = files
        self.report = progress
        self.resume = True
        self.result = BlockResult()
        self.done = 0
        self.total = 3 + sum(map(len, walk.tower)) + len(walk.singles) + len(walk.decoder)

    def image_weight(self, recipe: Recipe, probe: ModelWalk) -> tuple[float, dict[float, float]]:
        """Given by the recipe, found before, or found now."""
        if recipe.modality_weight != "auto":
            return float(recipe.modality_weight), {}
        path = self.files.folder / "image_weight.json"
        if self.resume and path.is_file():
            job, weight, losses = json.loads(path.read_text())
            if job == self.files.job:
                return weight, dict(losses)
        if not probe.batches:
            return 1.0, {}
        plans = [self._plans(block) for block in probe.decoder]
        weight, losses = find_image_weight(probe, plans, self.stored_dtype)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps([self.files.job, weight, list(losses.items())]))
        partial.replace(path)
        return weight, losses

    def everything(self, image_weight: float) -> None:
        """Tower, projectors, embedding, decoder, head: as data flows."""
        walk, data = self.walk, bool(self.walk.batches)
        everywhere_one = lambda run: None  # noqa: E731 - every token of the tower is an image token
        for chain in walk.tower:
            self._chain(chain, walk.capture_vision(chain) if data else [], everywhere_one)
        for block in walk.singles:
            self._chain([block], walk.capture_vision([block]) if data else [], everywhere_one)
        self._whole("embedding", self._embedding)
        steps = walk.steps() if data else []
        weights = walk.decoder_weights(image_weight)
        self._chain(walk.decoder, walk.capture_decoder(steps) if data else [], weights)
        if not self._tied():
            wanted = self.rules[walk.head.name].scheme is not None
            self._chain([walk.head], walk.head_runs(steps) if data and wanted else [], weights)
        self._whole("remaining", self._remaining)

    def _chain(
        self, blocks: Sequence[Block], runs: list[BlockRun], weights: Callable[[BlockRun], torch.Tensor | None]
    ) -> None:
        for position, block in enumerate(blocks):
            plans = self._plans(block)

            def make(position: int = position, block: Block = block, plans: list[LinearPlan] = plans) -> BlockResult:
                statistics = None
                wanted = [plan.name for plan in plans if plan.rule.scheme is not None]
                if self.walk.batches:
                    statistics = collect_statistics(
                        block,
                        position,
                        runs,
                        names=wanted,
                        weights=weights,
                        held_out=lambda batch: self.walk.batches[batch].held_out,
                    )
                return compress_block(block, plans, statistics, self.stored_dtype, self.source_bytes)

            self._whole(block.name, make)
            if position + 1 < len(blocks):
                for run in runs:
                    run.hidden = run.call(position, block)

    def _whole(self, name: str, make: Callable[[], BlockResult]) -> None:
        """One unit of work: read from its file or made and written, then put into the model."""
        started = time.monotonic()
        found = self.files.load(name) if self.resume else None
        made = found or make()
        if found is None:
            self.files.save(name, made)
        put_in_place(self.network, made)
        self.result.extend(made)
        self.done += 1
        self.report(Progress(self.done, self.total, name, time.monotonic() - started, found is not None))

    def _plans(self, block: Block) -> list[LinearPlan]:
        plans = []
        for name, module in block.module.named_modules():
            full = f"{block.name}.{name}" if name else block.name
            if isinstance(module, torch.nn.Linear) and full in self.rules:
                plans.append(LinearPlan(name, component_of(full, self.network), self.rules[full]))
        return plans

    def _tied(self) -> bool:
        return self.network.get_input_embeddings().weight is self.network.get_output_embeddings().weight

    def _embedding(self) -> BlockResult:
        """The token table, and the head where they are one tensor. A table has no inputs to learn from: it is rounded."""
        module = self.network.get_input_embeddings()
        name = module_name(self.network, module)
        names = [name, self.walk.head.name] if self._tied() else [name]
        rule = self.rules[name]
        result = BlockResult()
        weight = module.weight.detach()
        if rule.scheme is None:
            for at, one in enumerate(names):
                record = kept_record(one, component_of(one, self.network), rule.reason, weight, self.source_bytes)
                result.records.append(replace(record, bytes_before=0, bytes_after=0) if at else record)
            return result
        scheme = LinearScheme(fitting(rule.scheme.weight, weight.shape[1]))
        quantised = rtn(weight, scheme.weight)
        result.weights[name], result.schemes[name] = quantised, scheme
        for at, one in enumerate(names):
            result.records.append(
                LinearRecord(
                    one,
                    component_of(one, self.network),
                    rule.method if rule.method in ("rtn", "nf4", "fp8") else "rtn",
                    scheme.name,
                    sqnr_db=sqnr_db(weight, quantised),
                    # A tied pair is stored once.
                    bytes_before=0 if at else weight.numel() * self.source_bytes,
                    bytes_after=0 if at else quantised.stored_bytes,
                    note=f"one tensor with {names[1 - at]}" if len(names) == 2 else None,
                )
            )
        return result

    def _remaining(self) -> BlockResult:
        """Records of what no block covers: convolutions, GPT-2's Conv1D, position tables, parts that never run."""
        result = BlockResult()
        known = {record.name for record in self.result.records}
        reachable = {name for name, _, _ in matrices(self.network)}
        for name, module in self.network.named_modules():
            weight = getattr(module, "weight", None)
            if name in known or weight is None or weight.dim() < 2:
                continue
            result.records.append(
                kept_record(
                    name, component_of(name, self.network), _why_kept(self, name, reachable), weight, self.source_bytes
                )
            )
        return result


def _why_kept(run: _Compression, name: str, reachable: set[str]) -> str:
    if name in reachable:
        return "Foveal quantises nn.Linear only; this is GPT-2's Conv1D, whose weight lies the other way round"
    return structural_reason(name, run.network) or "a convolution: the patch embedding is small and the most sensitive"


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
    needing = next((name for name, rule in rules.items() if needs_inputs(rule)), None)
    if needing is not None:
        raise ConfigurationError(
            f"method {rules[needing].method} for {needing} needs calibration data, and there is none. Give image-text "
            "pairs, use the rendered tasks, or choose a recipe without data (nf4, int8 by rtn)."
        )


def _stored_dtype(model_dir: str | Path) -> torch.dtype:
    """The type of the checkpoint's weights, as its config says; folded norms are rounded to it."""
    values = json.loads((Path(model_dir) / "config.json").read_text())
    text = values.get("text_config") or {}
    name = next((v.get(key) for v in (values, text) for key in ("dtype", "torch_dtype") if v.get(key)), "float32")
    return getattr(torch, str(name).removeprefix("torch."), torch.float32)
