"""What a compressed model may lose. Defaults by how narrow its narrowest layer is; `thresholds_file` overrides them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from foveal.core.errors import ConfigurationError

__all__ = ["FOUR_BIT", "INT8", "PROFILES", "Profile", "Thresholds", "thresholds_for"]


def _check(name: str, value: float | None, *, low: float, high: float = float("inf")) -> None:
    if value is not None and not low <= value <= high:
        wanted = f"at least {low:g}" if high == float("inf") else f"between {low:g} and {high:g}"
        raise ConfigurationError(f"{name} is {value}; it must be {wanted}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Limits of the gate; None does not judge. Points are percentage points of accuracy (0..100)."""

    perplexity_percent: float
    """Most that perplexity may rise, in percent of the base's."""
    task_points: float
    """Most accuracy that any one task may lose, and all tasks on average."""
    perplexity_ceiling_percent: float
    """Rise that the interval must exclude; see `loss_rule`."""
    task_ceiling_points: float
    """Loss that a task's interval must exclude; see `loss_rule`."""
    bleu4_points: float
    """Most BLEU-4 (0..100) that captions may lose: wider than the tasks' limits, because it is judged without interval."""
    points_by_task: Mapping[str, float] = field(default_factory=dict)
    """Other limits for single tasks."""
    image_sensitivity_kept: float = 0.9
    """Least share of the base's image sensitivity (answers that change with the picture) that must remain."""
    image_kl_kept: float | None = 0.5
    """The same for the KL between answers with and without the picture: looser, because quantisation rescales logits."""
    size_ratio: float | None = 1.0
    """Most weight bytes, as a share of the base's."""
    greedy_exact: float | None = None
    """Least share of greedy answers that equal the base's."""
    top1: float | None = None
    """Least share of positions whose most likely token is the base's."""
    kl_mean: float | None = None
    """Most KL(base || candidate), nats per position."""
    peak_memory_ratio: float | None = None
    decode_ratio: float | None = None
    """Least decode speed, as a share of the base's."""
    prefill_ratio: float | None = None
    encode_ratio: float | None = None
    accept_undecided: bool = False
    """Accept where too few items were measured to decide."""
    confidence: float = 0.95
    """Of all tasks' intervals together."""
    resamples: int = 10_000

    def __post_init__(self) -> None:
        for name in _LOSSES:
            _check(name, getattr(self, name), low=0.0)
        for task, points in self.points_by_task.items():
            _check(f"points_by_task.{task}", points, low=0.0)
        for name in _SHARES:
            _check(name, getattr(self, name), low=0.0, high=1.0)
        for name in ("perplexity", "task"):
            unit = "percent" if name == "perplexity" else "points"
            limit, ceiling = getattr(self, f"{name}_{unit}"), getattr(self, f"{name}_ceiling_{unit}")
            if ceiling < limit:
                raise ConfigurationError(
                    f"{name}_ceiling_{unit} is {ceiling}; it must be at least {name}_{unit}, which is {limit}"
                )
        if not 0.5 <= self.confidence < 1:
            raise ConfigurationError(f"confidence is {self.confidence}; it must be at least 0.5 and below 1")
        if self.resamples < 100:
            raise ConfigurationError(f"resamples is {self.resamples}; it must be at least 100")

    def task_limit(self, task: str) -> float:
        return self.points_by_task.get(task, self.task_points)


_LOSSES = (
    "perplexity_percent",
    "task_points",
    "perplexity_ceiling_percent",
    "task_ceiling_points",
    "bleu4_points",
    "size_ratio",
    "kl_mean",
    "peak_memory_ratio",
    "decode_ratio",
    "prefill_ratio",
    "encode_ratio",
)
_SHARES = ("image_sensitivity_kept", "image_kl_kept", "greedy_exact", "top1")

Profile = Literal["4-bit", "INT8"]

FOUR_BIT = Thresholds(
    perplexity_percent=3.0,
    perplexity_ceiling_percent=6.0,
    task_points=1.5,
    task_ceiling_points=10.0,
    bleu4_points=3.0,
)
INT8 = Thresholds(
    perplexity_percent=0.5,
    perplexity_ceiling_percent=1.5,
    task_points=0.5,
    task_ceiling_points=5.0,
    bleu4_points=2.0,
)
PROFILES: dict[Profile, Thresholds] = {"4-bit": FOUR_BIT, "INT8": INT8}


def thresholds_for(
    narrowest_bits: int | None, override: Mapping[Profile, Thresholds] | None = None
) -> tuple[Profile, Thresholds]:
    """(profile, thresholds). A model whose bits are not known is held to INT8's: nothing entitles it to more loss."""
    profile: Profile = "4-bit" if narrowest_bits is not None and narrowest_bits <= 4 else "INT8"
    return profile, (override or PROFILES)[profile]
