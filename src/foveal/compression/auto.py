"""Choose a recipe from what is needed: memory, latency, quality (mission row Q12). A pure decision, no torch.

With a measured sensitivity table the bits of every group are chosen under the limits; without one, the best-keeping
preset that fits. Either way the expected quality is an estimate that says where it comes from: `foveal prove` decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from foveal.compression.allocation_recipe import MixedRecipe, recipe_of
from foveal.compression.budget import Allocation, Option, solve
from foveal.compression.groups import DecisionGroup, ModelLayout
from foveal.compression.recipe import Recipe
from foveal.compression.recipe_presets import AUTO, load_recipe
from foveal.compression.recipe_resolution import resolve
from foveal.compression.sensitivity_table import SensitivityTable
from foveal.core.errors import ConfigurationError
from foveal.core.model_spec import ModelSpec

__all__ = ["EXPECTED_QUALITY", "Choice", "Machine", "Needs", "choose_recipe"]

EXPECTED_QUALITY: dict[str, tuple[float, str]] = {
    "w8a16": (0.995, "assumed, not published: what the gate allows 8-bit weights to lose"),
    "w8a8": (0.995, "assumed: SmoothQuant (arXiv 2211.10438) calls its loss negligible, and the gate allows as much"),
    "vlm-mixed": (0.988, "assumed: 4 bits on feed-forward layers only, halfway between the 8-bit and the AWQ figure"),
    "w4a16-awq": (0.982, "worst of AWQ's VILA-1.5 results: SEED 60.9 becomes 59.8"),
    "w4a16-gptq": (0.936, "worst published for Qwen2-VL-2B: MMMU 41.88 becomes 39.22"),
}
"""Share of the base model's accuracy that a preset keeps at least, and the source; best first."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Limits; None is no limit."""

    memory_bytes: int | None = None
    """Weights and KV cache together."""
    token_latency_s: float | None = None
    """One output token of one request."""
    quality_floor: float = 0.98
    """Least share of the base model's accuracy that must remain."""
    kv_tokens: int = 0
    """Tokens that the KV cache must hold beside the weights."""

    def __post_init__(self) -> None:
        if not 0 < self.quality_floor < 1:
            raise ConfigurationError(
                f"quality floor {self.quality_floor} is not a share. Give a number between 0 and 1, for example 0.98."
            )
        for name in ("memory_bytes", "token_latency_s"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigurationError(f"{name} is {value}; it must be above 0. Leave it out for no limit.")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the model will run."""

    bandwidth_bytes_per_s: float
    """Sustained memory reads: what bounds decoding one request."""
    int8_products: bool = False
    """It multiplies 8-bit integers faster than 16-bit floats."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A recipe and why each part of it is as it is."""

    recipe: Recipe
    stored_bytes: int
    token_latency_s: float | None
    expected_quality: float
    reasons: tuple[str, ...]


def choose_recipe(
    spec: ModelSpec,
    layout: ModelLayout,
    needs: Needs,
    *,
    machine: Machine | None = None,
    table: SensitivityTable | None = None,
) -> Choice:
    """The recipe that keeps most quality within the limits; without limits, the smallest model above the quality floor.

    Raises ConfigurationError when the needs contradict each other, with the nearest that can be had.
    """
    limits = _Limits.of(spec, layout, needs, machine)
    found = _by_measurement(layout, limits, needs, table) if table else _by_preset(layout, limits, needs, machine)
    recipe, stored, read, quality, reasons = found
    if quality < needs.quality_floor:
        raise ConfigurationError(
            f"quality must stay at {needs.quality_floor:.1%} or more, but within {limits} the best recipe keeps an expected "
            f"{quality:.1%} ({recipe.name}, {stored:,} bytes). Raise the limits, or lower the floor."
        )
    latency = read / machine.bandwidth_bytes_per_s if machine else None
    if latency is not None:
        reasons.append(
            f"decoding reads {read:,} bytes per token, {1000 * latency:.2f} ms at "
            f"{machine.bandwidth_bytes_per_s / 1e9:.1f} GB/s"  # type: ignore[union-attr]
        )
    return Choice(replace(recipe, name=f"{AUTO}-{recipe.name}"), stored, latency, quality, (*limits.reasons, *reasons))


@dataclass(frozen=True, slots=True)
class _Limits:
    """Needs in bytes."""

    stored_bytes: int | None
    read_bytes: int | None
    reasons: tuple[str, ...]

    @classmethod
    def of(cls, spec: ModelSpec, layout: ModelLayout, needs: Needs, machine: Machine | None) -> _Limits:
        stored = read = None
        reasons = []
        if needs.memory_bytes is not None:
            kv_bytes = needs.kv_tokens * spec.kv_bytes_per_token(2)
            stored = needs.memory_bytes - kv_bytes
            reasons.append(
                f"memory {needs.memory_bytes:,} bytes, {kv_bytes:,} of it for {needs.kv_tokens:,} tokens of KV cache, "
                f"leaves {stored:,} for weights; in 16 bits they take {layout.base_bytes:,}"
            )
        if needs.token_latency_s is not None:
            if machine is None:
                raise ConfigurationError(
                    "a latency target needs the machine's memory bandwidth, and none was given. Give it in bytes per second."
                )
            read = int(needs.token_latency_s * machine.bandwidth_bytes_per_s)
            reasons.append(
                f"{1000 * needs.token_latency_s:.2f} ms per token at {machine.bandwidth_bytes_per_s / 1e9:.1f} GB/s is "
                f"{read:,} bytes to read: decoding one request is bound by reading the weights"
            )
        return cls(stored, read, tuple(reasons))

    def allow(self, stored: int, read: int) -> bool:
        fits = self.stored_bytes is None or stored <= self.stored_bytes
        return fits and (self.read_bytes is None or read <= self.read_bytes)

    @property
    def none_given(self) -> bool:
        return self.stored_bytes is None and self.read_bytes is None

    def __str__(self) -> str:
        parts = [] if self.stored_bytes is None else [f"{self.stored_bytes:,} bytes of weights"]
        parts += [] if self.read_bytes is None else [f"{self.read_bytes:,} bytes read per token"]
        return " and ".join(parts) or "no limits"


_Found = tuple[Recipe, int, int, float, list[str]]


def _by_preset(layout: ModelLayout, limits: _Limits, needs: Needs, machine: Machine | None) -> _Found:
    int8 = machine is not None and machine.int8_products
    names = [name for name in EXPECTED_QUALITY if name != ("w8a16" if int8 else "w8a8")]
    tried = [_sized(name, layout) for name in names]
    fitting = [one for one in tried if limits.allow(one[1], one[2])]
    if not fitting:
        smallest = min(tried, key=lambda one: one[1])
        raise ConfigurationError(
            f"no preset fits {limits}: the smallest, {smallest[0].name}, stores {smallest[1]:,} bytes and reads "
            f"{smallest[2]:,} per token. Raise the limits, or measure sensitivity, which can go lower."
        )
    if limits.none_given:
        above = [one for one in fitting if EXPECTED_QUALITY[one[0].name][0] >= needs.quality_floor]
        recipe, stored, read = min(above or fitting, key=lambda one: one[1])
        why = f"no limits: {recipe.name} is the smallest preset above the quality floor of {needs.quality_floor:.1%}"
    else:
        recipe, stored, read = fitting[0]
        passed = [f"{one[0].name} ({one[1]:,} bytes)" for one in tried[: tried.index(fitting[0])]]
        why = f"{recipe.name} keeps most of those that fit" + (f"; too large: {', '.join(passed)}" if passed else "")
    quality, source = EXPECTED_QUALITY[recipe.name]
    reasons = [why, f"expected quality {quality:.1%}, not measured on this model: {source}"]
    if recipe.name == "w8a8":
        reasons.append("inputs are rounded too, because this machine multiplies 8-bit integers")
    reasons += [f"{candidate}: {candidate.rule.reason}" for candidate in recipe.rules]
    return recipe, stored, read, quality, reasons


def _sized(name: str, layout: ModelLayout) -> tuple[Recipe, int, int]:
    recipe = load_recipe(name)
    decisions = resolve(recipe, layout)
    stored = layout.fixed_bytes + sum(decision.stored_bytes for decision in decisions)
    return recipe, stored, sum(one.stored_bytes for one in decisions if _is_read(one.group))


def _by_measurement(layout: ModelLayout, limits: _Limits, needs: Needs, table: SensitivityTable) -> _Found:
    options = table.options_for(layout)
    read = sum(group.stored_bytes(None) for group in layout.groups if _is_read(group))
    if limits.allow(layout.base_bytes, read):
        found = _smallest_above(layout, options, -math.log(needs.quality_floor))
        why = f"16 bits would do, so the smallest model expected to keep {needs.quality_floor:.1%}"
    else:
        found = recipe_of(layout, options, _within(layout, options, limits))
        why = f"the least measured damage within {limits}"
    read = sum(one.stored_bytes for one in resolve(found.recipe, layout) if _is_read(one.group))
    quality = math.exp(-found.damage)
    reasons = [
        f"{why}; {found.stored_bytes:,} bytes, {found.stored_bytes / layout.base_bytes:.1%} of the 16-bit size",
        f"expected quality {quality:.1%}: exp(-damage), the share of its answer's probability that the original's token "
        f"keeps, from {found.damage:.4f} nats measured with {table.pairs} questions, group by group"
        + (f" (bits at most {found.gap:.4f} from the best choice)" if found.gap else ""),
    ]
    reasons += [f"{candidate}: {candidate.rule.reason}" for candidate in found.recipe.rules]
    return found.recipe, found.stored_bytes, read, quality, reasons


def _within(layout: ModelLayout, options: Sequence[Sequence[Option]], limits: _Limits) -> Allocation:
    """Least damage within both limits. When latency binds, what is read per token is settled first, the rest after it."""
    room = layout.base_bytes if limits.stored_bytes is None else limits.stored_bytes
    everything = _solve_model(options, min(room, layout.base_bytes) - layout.fixed_bytes, limits)
    read = [number for number, group in enumerate(layout.groups) if _is_read(group)]
    read_bytes = sum(options[number][everything.choice[number]].cost_bytes for number in read)
    if limits.read_bytes is None or read_bytes <= limits.read_bytes:
        return everything
    rest = [number for number in range(len(options)) if number not in set(read)]
    least_rest = sum(min(option.cost_bytes for option in options[number]) for number in rest)
    budget = min(limits.read_bytes, room - layout.fixed_bytes - least_rest)
    first = _solve_model([options[number] for number in read], budget, limits)
    left = min(room, layout.base_bytes) - layout.fixed_bytes - first.cost_bytes
    second = solve([options[number] for number in rest], left)
    choice = dict(zip(read, first.choice, strict=True)) | dict(zip(rest, second.choice, strict=True))
    return Allocation(
        tuple(choice[number] for number in range(len(options))),
        first.cost_bytes + second.cost_bytes,
        first.damage + second.damage,
        everything.bound,
    )


def _solve_model(options: Sequence[Sequence[Option]], budget: int, limits: _Limits) -> Allocation:
    try:
        return solve(options, budget)
    except ConfigurationError as error:
        raise ConfigurationError(f"no choice of bits fits {limits}: {error}") from None


def _smallest_above(layout: ModelLayout, options: Sequence[Sequence[Option]], most_damage: float) -> MixedRecipe:
    """The least budget whose best choice stays within `most_damage`, to 1/1000 of the model."""
    least = sum(min(option.cost_bytes for option in group) for group in options)
    low, high = least, layout.base_bytes - layout.fixed_bytes
    best = solve(options, high)
    while high - low > layout.base_bytes // 1000:
        middle = (low + high) // 2
        found = solve(options, middle)
        if found.damage <= most_damage:
            best, high = found, middle
        else:
            low = middle
    if best.cost_bytes == layout.base_bytes - layout.fixed_bytes:
        raise ConfigurationError(
            f"every measured scheme does more than {most_damage:.1e} nats of damage, which is what the quality floor allows. "
            "Lower the floor, or measure candidates with more bits."
        )
    return recipe_of(layout, options, best)


def _is_read(group: DecisionGroup) -> bool:
    """True for what every decoding step reads whole: of an embedding table it takes one row."""
    return group.component in ("attention", "ffn", "head") or group.tied
