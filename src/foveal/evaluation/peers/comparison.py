"""Engines measured by turns on one model: conversion, quality, then speed in interleaved rounds."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from foveal.evaluation.peers.environment import Participant, PeerEnvironment
from foveal.evaluation.peers.figures import ImplausibleError, Measurement
from foveal.evaluation.peers.process import EngineProcess, PeerError
from foveal.evaluation.peers.quality import (
    LogitComparison,
    Logits,
    Quality,
    agreeing_share,
    compare_logits,
    summarise_quality,
)
from foveal.evaluation.peers.turns import turns
from foveal.evaluation.peers.workload import Workload

__all__ = ["Comparison", "ComparisonPlan", "LoadedEngine", "Outcome", "QualityTexts", "Reading"]

REFERENCE = Participant("transformers", "float32")
_WARM_UP_TOKENS = 4


@dataclass(frozen=True)
class QualityTexts:
    """Token ids of text for all engines alike."""

    windows: tuple[tuple[int, ...], ...]
    """Whole windows: perplexity and logits."""
    prompts: tuple[tuple[int, ...], ...]
    """Beginnings of equal length that are continued greedily."""
    new_tokens: int = 32


@dataclass(frozen=True)
class ComparisonPlan:
    model: Path
    participants: tuple[Participant, ...]
    workloads: tuple[Workload, ...]
    rounds: int
    threads: int
    vocabulary: int
    texts: QualityTexts | None = None
    """None leaves quality out."""
    seed: int = 0


@dataclass(frozen=True)
class LoadedEngine:
    """What a runner says about what it loaded."""

    weights: str
    weight_bits: int
    kv: str
    load_s: float
    weight_bytes: int | None = None
    """Read by a decode step, where the runner knows."""
    kv_bytes_per_token: int | None = None
    file_bytes: int | None = None


@dataclass
class Outcome:
    """Everything known about one participant. `error` says why figures are missing; what came before it is kept."""

    participant: Participant
    loaded: LoadedEngine | None = None
    quality: Quality | None = None
    measurements: list[Measurement] = field(default_factory=list)
    discarded: int = 0
    """Measurements that could not be, see ImplausibleError."""
    error: str | None = None


class Reading(Protocol):
    def gb_per_s(self) -> float: ...


class Comparison:
    """Raises nothing for an engine that fails: its outcome carries the words."""

    def __init__(
        self,
        plan: ComparisonPlan,
        environments: Mapping[str, PeerEnvironment],
        bandwidth: Reading,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.plan = plan
        self.outcomes = {participant: Outcome(participant) for participant in plan.participants}
        self._environments = environments
        self._bandwidth = bandwidth
        self._tell = tell

    def run(self) -> list[Outcome]:
        """In the order of the plan."""
        for participant in self.plan.participants:
            environment = self._environments[participant.engine]
            if environment.error is not None:
                self.outcomes[participant].error = environment.error
        for participant in self._alive():
            with self._failing(participant):
                self._convert(participant)
        if self.plan.texts is not None:
            self._measure_quality(self.plan.texts)
        self._measure_speed()
        return list(self.outcomes.values())

    def _alive(self) -> list[Participant]:
        return [participant for participant, outcome in self.outcomes.items() if outcome.error is None]

    @contextlib.contextmanager
    def _failing(self, participant: Participant) -> Iterator[None]:
        try:
            yield
        except PeerError as error:
            self._tell(f"{participant} failed: {error}")
            self.outcomes[participant].error = str(error)

    def _converted(self, participant: Participant) -> Path:
        folder = self._environments[participant.engine].folder
        return folder / "models" / f"{self.plan.model.name}-{participant.mode}"

    def _start(self, participant: Participant) -> EngineProcess:
        environment = self._environments[participant.engine]
        return EngineProcess(environment.python, environment.runner, threads=self.plan.threads)

    def _convert(self, participant: Participant) -> None:
        out = self._converted(participant)
        done = out.with_name(out.name + ".done")
        if done.exists():
            return
        # What an interrupted conversion left must not be taken for a model.
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(exist_ok=True)
        self._tell(f"{participant}: converting")
        with self._start(participant) as engine:
            engine.ask("convert", model=str(self.plan.model), mode=participant.mode, out=str(out))
        done.touch()

    def _load(self, engine: EngineProcess, participant: Participant, limits: Mapping[str, int]) -> LoadedEngine:
        fields = {
            "model": str(self.plan.model),
            "mode": participant.mode,
            "converted": str(self._converted(participant)),
            "limits": {"threads": self.plan.threads, **limits},
        }
        return LoadedEngine(**engine.ask("load", **fields))

    # Quality

    def _measure_quality(self, texts: QualityTexts) -> None:
        with tempfile.TemporaryDirectory(prefix="foveal-peers-") as folder:
            reference = _Reference(Path(folder), texts)
            environment = self._environments.get(REFERENCE.engine)
            if environment is None or environment.error is not None:
                self._tell("no transformers environment: quality is left out")
                return
            self._tell(f"{REFERENCE}: the reference of quality")
            try:
                self._convert(REFERENCE)
                with self._start(REFERENCE) as engine:
                    self._load(engine, REFERENCE, _quality_limits(texts))
                    reference.record(engine)
            except PeerError as error:
                self._tell(f"{REFERENCE} failed, so quality is left out: {error}")
                return
            for participant in self._alive():
                self._tell(f"{participant}: quality")
                with self._failing(participant), self._start(participant) as engine:
                    outcome = self.outcomes[participant]
                    outcome.loaded = self._load(engine, participant, _quality_limits(texts))
                    outcome.quality = reference.compare(engine)

    # Speed

    def _measure_speed(self) -> None:
        plan = self.plan
        limits = {
            "sequences": max(workload.concurrency for workload in plan.workloads),
            "tokens": max(workload.prompt_tokens + workload.new_tokens for workload in plan.workloads),
        }
        with contextlib.ExitStack() as stack:
            engines: dict[Participant, EngineProcess] = {}
            for participant in self._alive():
                self._tell(f"{participant}: loading")
                with self._failing(participant):
                    engine = stack.enter_context(self._start(participant))
                    self.outcomes[participant].loaded = self._load(engine, participant, limits)
                    for workload in plan.workloads:
                        engine.generate(workload.prompts(plan.vocabulary, seed=-1), _WARM_UP_TOKENS)
                    engine.freeze()
                    engines[participant] = engine
            for number, participant in turns(list(engines), plan.rounds):
                if self.outcomes[participant].error is not None:
                    continue
                with self._failing(participant):
                    for workload in plan.workloads:
                        self._measure(engines[participant], participant, workload, number)
                    engines[participant].freeze()

    def _measure(self, engine: EngineProcess, participant: Participant, workload: Workload, number: int) -> None:
        plan = self.plan
        # Everyone gets the same prompts within a round.
        seeds = (plan.seed + 2 * number, plan.seed + 2 * number + 1)
        reading = self._bandwidth.gb_per_s()
        first = engine.generate(workload.prompts(plan.vocabulary, seeds[0]), 1)
        total = engine.generate(workload.prompts(plan.vocabulary, seeds[1]), workload.new_tokens)
        try:
            found = Measurement(participant, workload, number, first["wall_s"], total["wall_s"], reading)
        except ImplausibleError as error:
            # Not measured again: choosing among tries would favour whoever was disturbed.
            self.outcomes[participant].discarded += 1
            self._tell(f"round {number + 1}: left out: {error}")
            return
        self.outcomes[participant].measurements.append(found)
        self._tell(
            f"round {number + 1}: {participant} {workload}: decode {found.decode_tok_s:.1f} tok/s, "
            f"prefill {found.prefill_tok_s:.0f} tok/s ({reading:.0f} GB/s)"
        )


class _Reference:
    """Logits of every window on disk, greedy answers in memory."""

    def __init__(self, folder: Path, texts: QualityTexts) -> None:
        self._folder = folder
        self._texts = texts
        self._answers: list[list[int]] = []

    def record(self, engine: EngineProcess) -> None:
        for number, window in enumerate(self._texts.windows):
            engine.ask("logits", prompt=list(window), out=str(self._folder / f"reference-{number}.npy"))
        self._answers = self._continue(engine)

    def compare(self, engine: EngineProcess) -> Quality:
        agreements = [
            agreeing_share(ours, theirs) for ours, theirs in zip(self._continue(engine), self._answers, strict=True)
        ]
        windows: list[LogitComparison] = []
        out = self._folder / "engine.npy"
        for number, window in enumerate(self._texts.windows):
            try:
                engine.ask("logits", prompt=list(window), out=str(out))
            except PeerError as error:
                return summarise_quality([], agreements, note=f"no logits: {error}")
            reference: Logits = np.load(self._folder / f"reference-{number}.npy")
            windows.append(compare_logits(np.load(out), reference, window))
        return summarise_quality(windows, agreements)

    def _continue(self, engine: EngineProcess) -> list[list[int]]:
        """One by one: not every engine batches without changing answers."""
        answers: list[Any] = []
        for prompt in self._texts.prompts:
            answers += engine.generate([prompt], self._texts.new_tokens)["token_ids"]
        return answers


def _quality_limits(texts: QualityTexts) -> dict[str, int]:
    longest = max(len(ids) for ids in (*texts.windows, *texts.prompts))
    return {"sequences": 1, "tokens": longest + texts.new_tokens}
