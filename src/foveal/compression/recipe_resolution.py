"""Apply a recipe to a model's decision groups: one rule per group, or an error that says which group it would split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from foveal.compression.components import Component
from foveal.compression.groups import DecisionGroup, ModelLayout
from foveal.compression.recipe import Recipe, RecipeRule, Rule
from foveal.core.errors import ConfigurationError

__all__ = ["Decision", "resolve", "rules_by_module"]


@dataclass(frozen=True, slots=True)
class Decision:
    """A group and the rule that it gets."""

    group: DecisionGroup
    rule: Rule

    @property
    def stored_bytes(self) -> int:
        return self.group.stored_bytes(self.rule.scheme)


def resolve(recipe: Recipe, layout: ModelLayout) -> tuple[Decision, ...]:
    """One decision per group, in the model's order.

    Raises ConfigurationError when rules split a group, when a rule with a layer range or a module expression matches
    nothing (a typo, never an intention), and when nothing at all would be quantised.
    """
    _refuse_idle_rules(recipe, layout)
    decisions = tuple(Decision(group, _decide(recipe, group)) for group in layout.groups)
    if all(decision.rule.scheme is None for decision in decisions):
        raise ConfigurationError(
            f"recipe {recipe.name} quantises nothing of this model: all {len(decisions)} groups are kept. Its rules are "
            f"for {_wanted(recipe)}; the model has {_present(layout)}. Add a rule that names one of these with a method."
        )
    return decisions


def rules_by_module(recipe: Recipe, layout: ModelLayout) -> dict[str, Rule]:
    """Module name -> rule, tied and fused modules included. Raises what `resolve` raises."""
    return {module: one.rule for one in resolve(recipe, layout) for module in one.group.modules}


def _decide(recipe: Recipe, group: DecisionGroup) -> Rule:
    found = [(name, recipe.rule_for(name, component, group.layer)) for name, component in _members(group)]
    name, rule = found[0]
    other = next((pair for pair in found[1:] if not pair[1].same_decision(rule)), None)
    if other is None:
        return replace(rule, reason=f"{rule.reason} (tied with {found[1][0]})") if group.tied else rule
    if not group.tied:
        raise ConfigurationError(
            f"recipe {recipe.name} splits a fused group: {name} gets {_shown(rule)}, {other[0]} gets {_shown(other[1])}. "
            f"The engine runs {', '.join(group.modules)} as one matrix: write the rule so that it matches all of them."
        )
    if recipe.tied_embedding == "refuse":
        raise ConfigurationError(
            f"recipe {recipe.name} splits tied weights: {name} gets {_shown(rule)}, {other[0]} gets {_shown(other[1])}, "
            "but they are one tensor. Write one rule for `component: [embedding, head]`, or say whose rule decides with "
            "`tied_embedding: embedding` or `tied_embedding: head`."
        )
    loser = other[0]
    if recipe.tied_embedding == "head":
        rule, loser = other[1], name
    return replace(rule, reason=f"{rule.reason} (one tensor with {loser}; tied_embedding: {recipe.tied_embedding})")


def _members(group: DecisionGroup) -> Iterator[tuple[str, Component]]:
    for position, name in enumerate(group.modules):
        yield name, "head" if group.tied and position else group.component


def _refuse_idle_rules(recipe: Recipe, layout: ModelLayout) -> None:
    every = [(name, part, group.layer) for group in layout.groups for name, part in _members(group)]
    for number, candidate in enumerate(recipe.rules, 1):
        if not candidate.layers and candidate.modules is None:
            continue  # a component that this model lacks, such as a tower, is no mistake
        if not any(candidate.matches(*member) for member in every):
            raise ConfigurationError(
                f"rule {number} of recipe {recipe.name} ({candidate}) matches nothing of this model, which has "
                f"{_present(layout)}. {_remedy(candidate, every[-1][0])}"
            )


def _remedy(candidate: RecipeRule, example: str) -> str:
    if candidate.modules is not None:
        return f"Its module names look like {example}."
    return "Write a range inside the model, or leave the rule out."


def _wanted(recipe: Recipe) -> str:
    return "; ".join(str(rule) for rule in recipe.rules)


def _present(layout: ModelLayout) -> str:
    layers: dict[str, int] = {}
    for group in layout.groups:
        layers[group.component] = max(layers.get(group.component, -1), -1 if group.layer is None else group.layer)
    return ", ".join(part + (f" (layers 0-{last})" if last >= 0 else "") for part, last in layers.items())


def _shown(rule: Rule) -> str:
    return "keep" if rule.scheme is None else f"{rule.method} {rule.scheme.name}"
