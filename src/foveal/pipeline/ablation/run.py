"""All stages on one traffic, by turns (mission row B1)."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from foveal.engine.build import build_loop, formats_of
from foveal.engine.build_speculator import load_draft
from foveal.engine.config import EngineConfig
from foveal.evaluation.peers.quality import agreeing_share
from foveal.evaluation.peers.turns import turns
from foveal.models.base import LanguageModel
from foveal.models.loading import load_processor
from foveal.pipeline.ablation.stages import Stage
from foveal.pipeline.ablation.systems import BaselineSystem, EngineSystem, Served, System
from foveal.pipeline.ablation.traffic import make_traffic

__all__ = ["AblationPlan", "load_systems", "run_ablation"]

_ROOM_TOKENS = 1024
"""Longest prompt with a picture, above the answer."""


@dataclass(frozen=True)
class AblationPlan:
    model: str
    stages: tuple[Stage, ...]
    concurrency: int
    requests: int
    new_tokens: int
    """Of the longest answer."""
    rounds: int
    threads: int
    seed: int = 0


class Reading(Protocol):
    def gb_per_s(self) -> float: ...


def load_systems(plan: AblationPlan, tell: Callable[[str], None]) -> dict[str, System]:
    """By the stage's name: one transformers model for the baselines, one of ours for each decoder and precision."""
    torch.set_num_threads(plan.threads)
    torch.set_flush_denormal(True)
    baseline: Any = None
    models: dict[tuple[str, str], LanguageModel] = {}
    systems: dict[str, System] = {}
    for stage in plan.stages:
        tell(f"loading: {stage.name}")
        if stage.attention is not None:
            baseline = baseline or _load_baseline(plan.model)
            systems[stage.name] = BaselineSystem(baseline, stage.attention)
            continue
        config = EngineConfig(
            model=plan.model,
            dtype="float32",
            num_threads=plan.threads,
            num_kv_blocks=plan.concurrency * (_ROOM_TOKENS + plan.new_tokens) // 2,
            **stage.engine,
        )
        if stage.model_key not in models:
            models[stage.model_key] = formats_of(config).load(plan.model)
        loop = build_loop(config, models[stage.model_key], draft=load_draft(config, formats_of(config)))
        loop.warm_up()
        systems[stage.name] = EngineSystem(loop)
    return systems


def run_ablation(
    plan: AblationPlan, systems: dict[str, System], bandwidth: Reading, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Ready for JSON: one row per stage with medians, and every pass."""
    processor = load_processor(plan.model)
    images = processor.family.supports_images
    traffic = [
        make_traffic(processor, plan.requests, plan.new_tokens, plan.seed + number, images=images)
        for number in range(plan.rounds)
    ]
    warm = make_traffic(processor, 2, 4, -1, images=images)
    for system in systems.values():
        system.serve(warm, 2)
    passes: dict[str, dict[int, Served]] = {stage.name: {} for stage in plan.stages}
    readings: dict[str, list[float]] = {stage.name: [] for stage in plan.stages}
    for number, stage in turns(plan.stages, plan.rounds):
        readings[stage.name].append(bandwidth.gb_per_s())
        served = passes[stage.name][number] = systems[stage.name].serve(traffic[number], plan.concurrency)
        tell(f"round {number + 1}: {stage.name}: {served.tokens_per_s:.1f} tok/s")
    return {
        "concurrency": plan.concurrency,
        "requests": plan.requests,
        "new_tokens": plan.new_tokens,
        "rounds": plan.rounds,
        "threads": plan.threads,
        "images": images,
        "rows": [_row(plan, passes, stage, readings[stage.name]) for stage in plan.stages],
        "passes": [
            {"stage": name, "round": number, "wall_s": served.wall_s, "tokens_per_s": served.tokens_per_s}
            for name, found in passes.items()
            for number, served in found.items()
        ],
    }


def _row(
    plan: AblationPlan, passes: dict[str, dict[int, Served]], stage: Stage, readings: Sequence[float]
) -> dict[str, Any]:
    served = passes[stage.name]
    at = plan.stages.index(stage)

    def over(other: Stage) -> float:
        """Median over rounds, each against the same round: gains are measured together, never multiplied."""
        pairs = ((served[number], passes[other.name][number]) for number in served)
        return statistics.median(mine.tokens_per_s / theirs.tokens_per_s for mine, theirs in pairs)

    waits = sorted(wait for one in served.values() for wait in one.ttft_s)
    base = passes[plan.stages[0].name]
    agreement = [
        agreeing_share(ours, theirs)
        for number in served
        for ours, theirs in zip(served[number].token_ids, base[number].token_ids, strict=True)
    ]
    return {
        "stage": stage.name,
        "ttft_p50_ms": 1e3 * statistics.median(waits),
        "ttft_p95_ms": 1e3 * waits[min(len(waits) - 1, int(0.95 * len(waits)))],
        "tokens_per_s": statistics.median(one.tokens_per_s for one in served.values()),
        "requests_per_s": statistics.median(one.requests_per_s for one in served.values()),
        "busy_cores": statistics.median(one.cpu_s / one.wall_s for one in served.values()),
        "rows_per_step": statistics.median(one.rows_per_step for one in served.values()),
        "over_the_stage_before": over(plan.stages[max(0, at - 1)]),
        "over_the_first": over(plan.stages[0]),
        "agreement_with_the_first": statistics.fmean(agreement),
        "gb_per_s": statistics.median(readings),
    }


def _load_baseline(model: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.utils import logging as transformers_logging

    kind = (
        AutoModelForImageTextToText
        if hasattr(AutoConfig.from_pretrained(model), "vision_config")
        else AutoModelForCausalLM
    )
    # The stages are told one by one; a bar for tensors would break their lines.
    transformers_logging.disable_progress_bar()
    loaded = kind.from_pretrained(model, dtype=torch.float32).eval()
    loaded.generation_config.eos_token_id = None
    return loaded
