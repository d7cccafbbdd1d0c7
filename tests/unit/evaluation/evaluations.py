"""Made-up measurements to judge: a base, and what becomes of it."""

from __future__ import annotations

import math
import random
from dataclasses import replace

from foveal.artifacts.file_digests import FileEntry
from foveal.artifacts.passport import Calibration, LinearEntry, Passport, Sizes, Source
from foveal.evaluation.evaluation_result import (
    Captions,
    Evaluation,
    ImageSensitivity,
    MeasuredModel,
    Perplexity,
    PictureDependence,
    TaskResult,
)

TASKS = ("bars/value", "easy-vqa", "relations/left", "shapes/count", "text/word")
WINDOWS = 60


def make_passport(*, bits: int = 4, **changes: object) -> Passport:
    linears = {
        "q_proj": LinearEntry(component="attention", scheme=f"int{bits}", method="gptq", bits=bits),
        "lm_head": LinearEntry(component="head", kept_reason="output head"),
    }
    passport = Passport(
        source=Source(name="base", digest="sha256:base"),
        recipe={"preset": "test"},
        calibration=Calibration(digest="sha256:c", samples=128, kind="rendered-tasks"),
        linears=linears,
        sizes=Sizes(source_bytes=1000, bytes=300),
        files={"config.json": FileEntry(2, "00"), "model.safetensors": FileEntry(300, "11")},
    )
    return replace(passport, **changes)  # type: ignore[arg-type]


def make_base(*, questions: int = 400, accuracy: float = 0.8, seed: int = 0) -> Evaluation:
    rng = random.Random(seed)
    answers = {task: tuple(rng.random() < accuracy for _ in range(questions)) for task in TASKS}
    nll = tuple(rng.gauss(600, 60) for _ in range(WINDOWS))
    return Evaluation(
        model=MeasuredModel(name="base", digest="sha256:base"),
        suite="standard, seed 0",
        tasks={task: TaskResult(per_item=items, items_digest=task) for task, items in answers.items()},
        perplexity=_perplexity(nll),
        captions=Captions(bleu4=40.0, items=50),
        image_sensitivity=sight(0.6),
        size_bytes=1000,
    )


def degrade(
    base: Evaluation,
    *,
    lost: float = 0.0,
    flipped: float = 0.0,
    rise: float = 0.0,
    digest: str | None = None,
    seed: int = 1,
) -> Evaluation:
    """A candidate that loses a share `lost` of the base's right answers, flips a share `flipped` of all either way (no
    net loss on average) and whose perplexity is `rise` (0.03: three per cent) higher."""
    rng = random.Random(seed)
    tasks = {}
    for task, result in base.tasks.items():
        items = []
        for right in result.per_item:
            if right and rng.random() < lost:
                right = False
            elif rng.random() < flipped:
                right = rng.random() < result.accuracy
            items.append(right)
        tasks[task] = replace(result, per_item=tuple(items))
    assert base.perplexity is not None
    nll = tuple(n + 128 * math.log1p(rise) + rng.gauss(0, 0.2) for n in base.perplexity.window_nll)
    return replace(
        base,
        model=MeasuredModel(name="candidate", digest=digest or make_passport().model_digest),
        tasks=tasks,
        perplexity=_perplexity(nll),
        captions=Captions(bleu4=39.5, items=50),
        size_bytes=300,
    )


def sight(share: float, kl: float = 1.5, items: int = 300) -> ImageSensitivity:
    """Every probe changes a share of the answers; per-item results included."""
    changed = tuple(i < round(share * items) for i in range(items))
    probe = PictureDependence(answers=share, kl=kl, accuracy=0.3, changed=changed)
    return ImageSensitivity(swap=probe, blank=probe, shuffled=probe, items=items, accuracy=0.8)


def _perplexity(nll: tuple[float, ...]) -> Perplexity:
    tokens = 128 * len(nll)
    return Perplexity(value=math.exp(sum(nll) / tokens), tokens=tokens, window_nll=nll, window_tokens=(128,) * len(nll))
