"""Is a compressed model still as good as its base? Verify, measure both, judge, and write the answer down."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from foveal.artifacts.model_files import source_digest
from foveal.artifacts.passport import Passport
from foveal.artifacts.passport_file import has_passport, read_passport, record_proof
from foveal.artifacts.verification import verify
from foveal.core.errors import ArtifactError, ConfigurationError, ModelLoadError, StorageError
from foveal.evaluation.evaluation_result import Evaluation
from foveal.evaluation.gate import judge, reject_artefact
from foveal.evaluation.observation import Observation, OnStage, compare, observe
from foveal.evaluation.suite import Suite
from foveal.evaluation.text_corpus import evaluation_cache_dir
from foveal.evaluation.thresholds import Profile, Thresholds
from foveal.evaluation.verdict import Verdict
from foveal.models.run_formats import RunFormats
from foveal.pipeline.observation_file import observation_path, read_observation, write_observation
from foveal.pipeline.running_cost import measure_running
from foveal.pipeline.transformers_model import TransformersEvaluatedModel

__all__ = ["Proof", "evaluate_model", "prove"]

_AS_SERVED = RunFormats()

Limits = Mapping[Profile, Thresholds] | Thresholds | None


@dataclass(frozen=True)
class Proof:
    """The verdict and what it rests on. `candidate` is None where the directory was refused before it was measured."""

    verdict: Verdict
    base: Evaluation | None
    candidate: Evaluation | None
    passport: Passport | None


def evaluate_model(
    directory: Path,
    suite: Suite,
    formats: RunFormats = _AS_SERVED,
    *,
    on_stage: OnStage | None = None,
    running: bool = True,
) -> Observation:
    """Load a model, ask it the suite, let go of it. Raises ModelLoadError and ArtifactError."""
    model = TransformersEvaluatedModel(directory, formats)
    try:
        return observe(model, suite, on_stage=on_stage, running=running)
    finally:
        del model
        gc.collect()


def prove(
    candidate: Path,
    base: Path,
    suite: Suite,
    *,
    formats: RunFormats = _AS_SERVED,
    thresholds: Limits = None,
    reuse_base: bool = True,
    running: bool = True,
    cache_dir: Path | None = None,
    on_stage: OnStage | None = None,
) -> Proof:
    """Measure both on one suite and judge. The verdict goes into the candidate's passport, where it has a sound one.

    The candidate runs in `formats`, as it is going to be served; the base as a server runs it by default, in the same dtype.
    A candidate that is not what its passport says, or does not load, is rejected before the base is measured. What the
    base answered is kept in `cache_dir` for the next candidate; speed and memory are measured anew. Raises ModelLoadError
    and ArtifactError about the base, StorageError where the verdict could not be written, and ConfigurationError about
    suite, thresholds and a candidate that is no directory.
    """
    suite.items  # noqa: B018 - read questions and text before the minutes that loading takes
    suite.passage  # noqa: B018
    base_digest = source_digest(base)
    if not candidate.is_dir():
        raise ConfigurationError(f"there is no directory {candidate}. Give the directory of the compressed model.")
    passport = None
    if has_passport(candidate):
        try:
            passport = verify(candidate)
        except ArtifactError as error:
            return _refused(candidate, reject_artefact(error, base_digest))
        if not os.access(candidate, os.W_OK):
            raise StorageError(
                f"{candidate} cannot be written, and the verdict goes into its passport",
                remedy="Change its permissions, or prove a copy",
            )
    try:
        ours = evaluate_model(candidate, suite, formats, on_stage=_named("candidate", on_stage), running=running)
    except (ModelLoadError, ArtifactError) as error:
        return _refused(candidate, reject_artefact(_as_artefact_error(error), base_digest))
    theirs = _base(base, base_digest, suite, RunFormats(dtype=formats.dtype), reuse_base, running, cache_dir, on_stage)
    evaluation = compare(ours, theirs)
    verdict = judge(evaluation, theirs.evaluation, passport, thresholds=thresholds)
    if passport is not None:
        passport = record_proof(candidate, evaluation=evaluation.for_passport(), verdict=verdict.for_passport())
    return Proof(verdict, theirs.evaluation, evaluation, passport)


def _base(
    base: Path,
    digest: str,
    suite: Suite,
    formats: RunFormats,
    reuse: bool,
    running: bool,
    cache_dir: Path | None,
    on_stage: OnStage | None,
) -> Observation:
    path = observation_path(cache_dir or evaluation_cache_dir(), digest, suite.description, formats.dtype)
    stage = _named("base", on_stage)
    found = read_observation(path) if reuse else None
    if found is None:
        found = evaluate_model(base, suite, formats, on_stage=stage, running=False)
        if reuse:
            with suppress(OSError):  # a cache that cannot be written costs time, not the result
                write_observation(path, found)
    if not running:
        return found
    done = stage("speed and memory", 1)
    cost = measure_running(base, formats)
    done(1)
    missing = {k: v for k, v in found.evaluation.not_measured.items() if k not in ("speed", "peak_memory_bytes")}
    measured = replace(
        found.evaluation, speed=cost.speed, peak_memory_bytes=cost.peak_memory_bytes, not_measured=missing
    )
    return replace(found, evaluation=measured)


def _refused(candidate: Path, verdict: Verdict) -> Proof:
    """Write the verdict where the passport itself can still be read."""
    passport = None
    if has_passport(candidate):
        try:
            passport = read_passport(candidate)
            verdict = replace(verdict, passport_digest=passport.digest)
            passport = record_proof(candidate, evaluation=None, verdict=verdict.for_passport())
        except ArtifactError:
            passport = None
    return Proof(verdict, None, None, passport)


def _as_artefact_error(error: ModelLoadError | ArtifactError) -> ArtifactError:
    return error if isinstance(error, ArtifactError) else ArtifactError(f"the model does not load: {error}")


def _named(who: str, on_stage: OnStage | None) -> OnStage:
    if on_stage is None:
        return lambda name, steps: lambda done: None
    return lambda name, steps: on_stage(f"{who}: {name}", steps)
