"""From measured damage and a byte budget to a recipe that any compression run can follow. No torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from foveal.compression.budget import Allocation, Option, solve
from foveal.compression.components import COMPONENTS, Component
from foveal.compression.groups import DecisionGroup, ModelLayout
from foveal.compression.recipe import CalibrationPlan, Method, Recipe, RecipeRule, Rule
from foveal.compression.recipe_reader import parse_layers
from foveal.compression.sensitivity_table import KEEP, SensitivityTable
from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.scheme import LinearScheme, parse_linear

GPTQ_OPTIONS: dict[str, bool | float | str] = {"damping": 0.01, "act_order": True, "observer": "mse"}

__all__ = ["MixedRecipe", "mixed_recipe", "recipe_of"]


@dataclass(frozen=True, slots=True)
class MixedRecipe:
    """A recipe by measured sensitivity, and what it should come to."""

    recipe: Recipe
    stored_bytes: int
    """The whole model."""
    damage: float
    """Sum of the measured damages, nats per answer token: an estimate, as groups are measured one at a time."""
    gap: float
    """How much of it a better choice of bits could save at most."""


def mixed_recipe(
    layout: ModelLayout, table: SensitivityTable, budget_bytes: int, *, name: str = "mixed"
) -> MixedRecipe:
    """The least measured damage in `budget_bytes`, which the whole model must fit: embeddings, head and norms included.

    Raises ConfigurationError with the least possible size if it cannot, and if everything fits in 16 bits: then there is
    nothing to choose.
    """
    options = table.options_for(layout)
    least = layout.fixed_bytes + sum(min(option.cost_bytes for option in group) for group in options)
    if least > budget_bytes:
        raise ConfigurationError(
            f"the budget is {budget_bytes:,} bytes, but the smallest choice for every group comes to {least:,} "
            f"({least / layout.base_bytes:.0%} of the 16-bit size). Raise the budget to that or more, or measure candidates "
            "with fewer bits."
        )
    if budget_bytes >= layout.base_bytes:
        raise ConfigurationError(
            f"the budget is {budget_bytes:,} bytes, and the model takes {layout.base_bytes:,} in 16 bits: nothing needs to "
            "be quantised. Give a smaller budget."
        )
    return recipe_of(layout, options, solve(options, budget_bytes - layout.fixed_bytes), name)


def recipe_of(
    layout: ModelLayout, options: Sequence[Sequence[Option]], allocation: Allocation, name: str = "mixed"
) -> MixedRecipe:
    """The recipe that gives every group its chosen option, linears of the language model by GPTQ."""
    chosen = [group[index] for group, index in zip(options, allocation.choice, strict=True)]
    alike: dict[tuple[Component, str, tuple[str, ...], bool], list[tuple[DecisionGroup, Option]]] = {}
    for group, option in zip(layout.groups, chosen, strict=True):
        if option.label != KEEP:
            key = (group.component, option.label, _tails(group), group.tied)
            alike.setdefault(key, []).append((group, option))
    ordered = sorted(alike.items(), key=lambda item: COMPONENTS.index(item[0][0]))  # stable: model order within
    rules = [_rule(component, label, tails, tied, members) for (component, label, tails, tied), members in ordered]
    rest = Rule("keep", None, "measured: its bytes are worth more to the answers than other groups' are")
    calibration = CalibrationPlan()
    recipe = Recipe(
        name,
        (*rules, RecipeRule(rest)),
        f"bits by measured sensitivity, {sum(option.label != KEEP for option in chosen)} of {len(chosen)} groups quantised",
        calibration,
    )
    return MixedRecipe(recipe, layout.fixed_bytes + allocation.cost_bytes, allocation.damage, allocation.gap)


def _rule(
    component: Component,
    label: str,
    tails: tuple[str, ...],
    tied: bool,
    members: Sequence[tuple[DecisionGroup, Option]],
) -> RecipeRule:
    scheme = parse_linear(label)
    damage = sum(option.damage for _, option in members)
    reason = f"measured: {damage:.2e} nats per answer token" + (
        f" over {len(members)} layers" if len(members) > 1 else ""
    )
    method = _method(component, scheme)
    rule = Rule(method, scheme, reason, GPTQ_OPTIONS if method == "gptq" else {})
    if tied:
        return RecipeRule(rule, ("embedding", "head"))
    layers = [group.layer for group, _ in members if group.layer is not None]
    pattern = "|".join(re.escape(tail) for tail in tails)
    return RecipeRule(rule, (component,), parse_layers(layers) if layers else (), rf"(?:^|\.)(?:{pattern})$")


def _tails(group: DecisionGroup) -> tuple[str, ...]:
    """Module names from behind the layer number on; whole names outside layers."""
    if group.layer is None:
        return group.modules
    return tuple(module.partition(f".{group.layer}.")[2] for module in group.modules)


def _method(component: Component, scheme: LinearScheme) -> Method:
    if scheme.weight.kind == "nf4":
        return "nf4"
    if scheme.weight.kind == "float":
        return "fp8"
    # A table is read row by row and never sees a calibration input; 8 bits of the tower lose nothing to make up for.
    return (
        "gptq" if component in ("attention", "ffn") or (scheme.weight.bits < 8 and component != "embedding") else "rtn"
    )
