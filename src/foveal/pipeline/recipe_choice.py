"""The recipe of a compression: named, read from a file, or chosen by measurement on this very model."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from foveal.artifacts.model_files import source_digest
from foveal.compression.allocation_recipe import mixed_recipe
from foveal.compression.asked_pictures import AskedPicture, from_calibration, from_rendered_tasks, from_texts
from foveal.compression.auto import Machine, Needs, choose_recipe
from foveal.compression.budget import parse_budget
from foveal.compression.calibration import CalibrationSample, CalibrationSet
from foveal.compression.groups import layout_of
from foveal.compression.recipe import Recipe
from foveal.compression.recipe_presets import AUTO, load_recipe
from foveal.compression.sensitivity import OnMeasured, measure_sensitivity
from foveal.core.errors import ConfigurationError
from foveal.models.loading import load_model, load_processor

__all__ = ["PROBED_TEXTS", "ChosenRecipe", "RecipeWish", "choose"]

_PICTURES = 8
PROBED_TEXTS = 4
"""Texts that sensitivity is measured on beside the pictures, at most."""
_BANDWIDTH_BYTES = 256 << 20


@dataclass(frozen=True)
class RecipeWish:
    """What was asked for. The rest is for `auto`, which measures sensitivity first: `budget` is a size of the whole model
    ("60%" of it in 16 bits, "90MB"), the others are limits, which leave the size open."""

    name: str
    budget: str | None = None
    memory: str | None = None
    token_latency_ms: float | None = None
    quality_floor: float = 0.98

    @property
    def is_measured(self) -> bool:
        return self.name == AUTO


@dataclass(frozen=True)
class ChosenRecipe:
    """`reasons` are lines for people; empty for recipes that were given."""

    recipe: Recipe
    reasons: tuple[str, ...] = ()


def choose(
    wish: RecipeWish,
    model_dir: Path,
    *,
    calibration: CalibrationSet | None = None,
    texts: Sequence[CalibrationSample] = (),
    cache_dir: Path | None = None,
    progress: OnMeasured | None = None,
) -> ChosenRecipe:
    """Presets and files are read; `auto` is measured on the first pictures of `calibration`, or on rendered ones, and on
    the first of `texts`.

    Raises ConfigurationError for wishes that contradict each other or cannot be met; before the measurement where that
    can be told.
    """
    if not wish.is_measured:
        limits = ("budget", "memory", "token_latency_ms")
        given = next((name for name in limits if getattr(wish, name) is not None), None)
        if given is not None:
            raise ConfigurationError(
                f"recipe {wish.name} fixes all bits, and --{given.replace('_', '-')} would choose them. Use --recipe auto."
            )
        return ChosenRecipe(load_recipe(wish.name))
    if wish.budget is not None and (wish.memory is not None or wish.token_latency_ms is not None):
        raise ConfigurationError(
            "--budget settles the size, and --memory or --token-latency-ms would settle it too. Give one or the other."
        )
    model = load_model(model_dir, dtype="float32", decoder="hf")
    layout = layout_of(model.hf_model)
    latency = wish.token_latency_ms
    budget = None if wish.budget is None else parse_budget(wish.budget, layout.base_bytes)
    needs = Needs(
        memory_bytes=None if wish.memory is None else parse_budget(wish.memory, layout.base_bytes),
        token_latency_s=None if latency is None else latency / 1000,
        quality_floor=wish.quality_floor,
    )
    table = measure_sensitivity(
        model,
        load_processor(model_dir),
        _asked(calibration, model.spec.supports_images) + from_texts(texts[:PROBED_TEXTS]),
        source_digest=source_digest(model_dir),
        layout=layout,
        progress=progress,
        cache_dir=cache_dir,
    )
    if budget is not None:
        found = mixed_recipe(layout, table, budget)
        reasons = [
            f"{found.stored_bytes:,} bytes expected, {found.stored_bytes / layout.base_bytes:.1%} of the 16-bit size; "
            f"{found.damage:.4f} nats of damage measured, at most {found.gap:.4f} above the best choice of bits"
        ]
        reasons += [f"{rule}: {rule.rule.reason}" for rule in found.recipe.rules]
        return ChosenRecipe(found.recipe, tuple(reasons))
    choice = choose_recipe(
        model.spec,
        layout,
        needs,
        machine=None if latency is None else Machine(_read_bandwidth(cache_dir)),
        table=table,
    )
    return ChosenRecipe(replace(choice.recipe, description=" ".join(choice.reasons[:1])), choice.reasons)


def _asked(calibration: CalibrationSet | None, supports_images: bool) -> list[AskedPicture]:
    if not supports_images:
        raise ConfigurationError(
            "recipe auto measures how much answers depend on pictures, and this model reads text only. Name a preset."
        )
    return from_rendered_tasks(_PICTURES) if calibration is None else from_calibration(calibration, _PICTURES)


def _read_bandwidth(cache_dir: Path | None) -> float:
    """Bytes per second that this process reads from memory: best of three passes over 256 MB.

    Kept in `cache_dir`: a compression that is taken up again must choose the same bits as before.
    """
    path = None if cache_dir is None else cache_dir / f"read-bandwidth-{platform.node()}.json"
    if path is not None:
        with suppress(OSError, ValueError, TypeError):
            return float(json.loads(path.read_text(encoding="utf-8")))
    measured = _measured_bandwidth()
    if path is not None:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(measured), encoding="utf-8")
    return measured


def _measured_bandwidth() -> float:
    block = np.ones(_BANDWIDTH_BYTES // 8)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        block.sum()
        times.append(time.perf_counter() - began)
    return _BANDWIDTH_BYTES / min(times)
