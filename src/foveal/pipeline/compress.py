"""From a model directory and a recipe to an artefact: quantise, write, passport, reload, publish."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from foveal.artifacts.model_files import source_digest
from foveal.artifacts.passport import Passport
from foveal.artifacts.passport_file import write_passport
from foveal.artifacts.staging import StagedDirectory, check_output
from foveal.artifacts.storage import explain_storage_errors
from foveal.compression.calibration import CalibrationSet
from foveal.compression.compressor import Progress, compress, job_digest, stored_dtype
from foveal.compression.formats.registry import check_expressible, format_named
from foveal.compression.formats.writer import KeptDType, write_checkpoint
from foveal.compression.groups import fitting, layout_of
from foveal.compression.recipe import CalibrationPlan, Recipe
from foveal.compression.recipe_resolution import resolve
from foveal.core.errors import ConfigurationError
from foveal.models.registry import family_of
from foveal.pipeline.artefact_passport import make_passport, tool_versions
from foveal.pipeline.calibration_texts import calibration_texts
from foveal.pipeline.model_skeleton import load_skeleton
from foveal.pipeline.reload_check import check_reload

__all__ = ["CompressionJob", "OnWork", "calibration_for", "check_places", "compress_model"]

OnWork = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all)."""

_AFTER_BLOCKS = 3


@dataclass(frozen=True)
class CompressionJob:
    """What to compress, how, and where to. `kept_dtype` None: 16 bits for what a float32 source keeps, else as it is."""

    source: Path
    recipe: Recipe
    output: Path
    calibration: CalibrationSet | None
    kept_dtype: KeptDType | None = None
    resume: bool = True
    force: bool = False


def calibration_for(
    plan: CalibrationPlan, model_dir: Path | None = None, *, cache_dir: Path | None = None
) -> CalibrationSet:
    """The rendered tasks, or a JSON Lines file cut to the plan's number; and texts, where a model is given.

    A model that reads text only gets texts in place of rendered tasks. Raises ConfigurationError and what loading the
    model raises.
    """
    if plan.source == "rendered-tasks" and model_dir is not None and not _sees(_existing(model_dir)):
        number = max(plan.samples, plan.texts)
        texts = calibration_texts(plan.texts_from, model_dir, number, cache_dir=cache_dir)
        return CalibrationSet(texts, f"{len(texts)} texts ({Path(plan.texts_from).name})")
    if plan.source == "rendered-tasks":
        pairs = CalibrationSet.from_rendered_tasks(plan.samples, seed=plan.seed)
    else:
        pairs = CalibrationSet.from_jsonl(plan.source)
        pairs = replace(pairs, samples=pairs.samples[: plan.samples])
    with_pictures = sum(sample.picture is not None for sample in pairs.samples)
    number = min(plan.texts, with_pictures // 2)
    if model_dir is None or number == 0:
        return pairs
    texts = calibration_texts(plan.texts_from, _existing(model_dir), number, cache_dir=cache_dir)
    return pairs.with_texts(texts, Path(plan.texts_from).name)


def compress_model(job: CompressionJob, on_work: OnWork = lambda what, done, total: None) -> Passport:
    """Nothing appears under the output's name before it is complete, has a passport and was loaded by a fresh process.

    Interrupted and called again with the same job, finished blocks are taken up and the result is the same to the bit.
    Raises ConfigurationError, ModelLoadError and ArtifactError (the output exists, the disk is full).
    """
    source = check_places(job.source, job.output, job.recipe.format, force=job.force)
    recipe = _without_paths(job.recipe)
    on_work("reading the model", 0, 1)
    _refuse_inexpressible(source, recipe)
    digest = source_digest(source)
    kept = job.kept_dtype or _kept_dtype(source)
    # Other versions, or another number of threads, may round a sum otherwise: their blocks must not be mixed.
    identity = [job_digest(digest, recipe, job.calibration), kept, torch.get_num_threads(), tool_versions()]
    with StagedDirectory(
        job.output,
        job=hashlib.sha256(json.dumps(identity).encode()).hexdigest(),
        force=job.force,
        resume=job.resume,
    ) as staged:
        last = 0

        def on_block(progress: Progress) -> None:
            nonlocal last
            last = progress.total
            note = " (found)" if progress.resumed else ""
            on_work(progress.name + note, progress.done, progress.total + _AFTER_BLOCKS)

        result = compress(
            source,
            recipe,
            job.calibration,
            staged.scratch,
            source=digest,
            progress=on_block,
            resume=job.resume,
        )
        on_work("writing the checkpoint", last, last + _AFTER_BLOCKS)
        with explain_storage_errors(staged.path):
            _clear(staged)
            write_checkpoint(
                source,
                staged.path,
                result.weights,
                result.schemes,
                result.replaced,
                recipe.format,
                kept,
                static_inputs=result.static_inputs,
            )
        on_work("loading it in a fresh process", last + 1, last + _AFTER_BLOCKS)
        check_reload(staged.path, result)
        on_work("writing the passport", last + 2, last + _AFTER_BLOCKS)
        passport = make_passport(source, digest, staged.path, recipe, job.calibration, result)
        write_passport(staged.path, passport)
        staged.publish()
    on_work("done", last + _AFTER_BLOCKS, last + _AFTER_BLOCKS)
    return passport


def check_places(model_dir: Path, output: Path, checkpoint_format: str, *, force: bool = False) -> Path:
    """The model's directory, if that, the output's name and the format can work: before anything slow is done.

    Raises ConfigurationError and OutputExistsError.
    """
    source = _existing(model_dir)
    if output.expanduser().resolve() == source.resolve():
        raise ConfigurationError(f"{source} is both model and output. Choose another output directory.")
    check_output(output.expanduser(), force=force)
    format_named(checkpoint_format)
    return source


def _without_paths(recipe: Recipe) -> Recipe:
    """The recipe as passports carry it: of a file its name. What it held is in the calibration's digest."""
    plan = recipe.calibration
    return replace(
        recipe, calibration=replace(plan, source=Path(plan.source).name, texts_from=Path(plan.texts_from).name)
    )


def _sees(model_dir: Path) -> bool:
    return family_of(load_skeleton(model_dir).config.model_type).supports_images


def _refuse_inexpressible(source: Path, recipe: Recipe) -> None:
    """Raises ConfigurationError before the work for what resolves to nothing, or what the format cannot store."""
    layout = layout_of(load_skeleton(source))
    decisions = [one for one in resolve(recipe, layout) if one.rule.scheme is not None]
    schemes, shapes, tables = {}, {}, []
    for decision in decisions:
        group, scheme = decision.group, decision.rule.scheme
        assert scheme is not None
        for name, shape in zip(group.modules, group.shapes, strict=False):  # of a tied pair the stored one
            schemes[name] = replace(scheme, weight=fitting(scheme.weight, shape[1]))
            shapes[name] = shape
        tables += group.modules[:1] if group.tied or group.component == "embedding" else []
    check_expressible(schemes, recipe.format, embeddings=tables, shapes=shapes)


def _existing(model_dir: Path) -> Path:
    source = model_dir.expanduser()
    if not source.is_dir():
        raise ConfigurationError(f"there is no directory {source}. Compress a checkpoint directory.")
    return source


def _clear(staged: StagedDirectory) -> None:
    """A checkpoint that an earlier run wrote and did not publish is written again: it takes seconds, checking it too."""
    for path in staged.path.iterdir():
        if path in staged.scratch.parents:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _kept_dtype(source: Path) -> KeptDType | None:
    """float16 for a model stored in float32: its other half would be the largest part of a 4-bit model."""
    return "float16" if stored_dtype(source) == torch.float32 else None
