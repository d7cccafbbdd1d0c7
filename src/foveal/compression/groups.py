"""Decision groups: matrices that must be stored alike, because the engine runs them as one or the file holds them once.

q, k and v of a layer are one product, gate and up another; a tied embedding and head are one tensor. A recipe, the
sensitivity measurement and the budget all decide per group. No torch: the model is only looked at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from foveal.compression.components import Component, component_of, layer_of, matrices, module_name
from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.scheme import LinearScheme, WeightScheme, effective_group

__all__ = ["KEPT_BYTES_PER_WEIGHT", "DecisionGroup", "ModelLayout", "fitting", "layout_of"]

KEPT_BYTES_PER_WEIGHT = 2
"""What is not quantised is stored in 16 bits."""

_FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


@dataclass(frozen=True, slots=True)
class DecisionGroup:
    """Matrices under one decision. `modules` are transformers' module names, `shapes` their [out, in]."""

    name: str
    component: Component
    layer: int | None
    modules: tuple[str, ...]
    shapes: tuple[tuple[int, int], ...]
    tied: bool = False
    """Embedding and head are one tensor: `modules` names both, `shapes` only the one that is stored."""

    def stored_bytes(self, scheme: LinearScheme | None) -> int:
        """Bytes on disk under `scheme`, after the fall-back of group sizes that do not fit; None: kept in 16 bits."""
        if scheme is None:
            return sum(rows * columns for rows, columns in self.shapes) * KEPT_BYTES_PER_WEIGHT
        return sum(fitting(scheme.weight, shape[1]).stored_bytes(shape) for shape in self.shapes)


@dataclass(frozen=True, slots=True)
class ModelLayout:
    """Every decision group of a model, and the bytes that no decision changes."""

    groups: tuple[DecisionGroup, ...]
    fixed_bytes: int
    """Norms, biases, convolutions, position tables and what never runs, in 16 bits."""

    @property
    def base_bytes(self) -> int:
        """The whole model in 16 bits: what a budget in per cent refers to."""
        return self.fixed_bytes + sum(group.stored_bytes(None) for group in self.groups)

    def bytes_with(self, schemes: Sequence[LinearScheme | None]) -> int:
        """The whole model with one scheme per group."""
        pairs = zip(self.groups, schemes, strict=True)
        return self.fixed_bytes + sum(group.stored_bytes(scheme) for group, scheme in pairs)


def layout_of(model: Any) -> ModelLayout:
    """The groups of a loaded transformers model, in its own order. Raises ConfigurationError for an unknown part."""
    shapes = {name: shape for name, _, shape in matrices(model)}
    table = module_name(model, model.get_input_embeddings())
    head = module_name(model, model.get_output_embeddings())
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    groups = []
    for members in _fused(list(shapes)):
        if tied and members == (head,):
            continue
        shared = tied and members == (table,)
        modules = (table, head) if shared else members
        own = tuple(shapes[member] for member in members)
        component, layer = component_of(members[0], model), layer_of(members[0])
        groups.append(DecisionGroup(_group_name(modules), component, layer, modules, own, shared))
    decided = sum(rows * columns for group in groups for rows, columns in group.shapes)
    everything = sum(parameter.numel() for parameter in model.parameters())  # a tied tensor counts once
    return ModelLayout(tuple(groups), (everything - decided) * KEPT_BYTES_PER_WEIGHT)


def fitting(scheme: WeightScheme, in_features: int) -> WeightScheme:
    """`scheme` with the largest group size, up to its own, that divides the input; one scale per channel if none does.

    Raises ConfigurationError for NF4, which has blocks only.
    """
    if scheme.group is None:
        return scheme
    group = effective_group(in_features, scheme.group)
    if group is None and scheme.kind == "nf4":
        raise ConfigurationError(
            f"an input of {in_features} divides into no blocks of {scheme.group} or less. Keep this matrix, or use int8."
        )
    return replace(scheme, group_size=group)


def _fused(names: list[str]) -> list[tuple[str, ...]]:
    """Names in order, with fused ones gathered at the place of the first."""
    known = set(names)
    taken: set[str] = set()
    result: list[tuple[str, ...]] = []
    for name in names:
        if name in taken:
            continue
        parent, dot, last = name.rpartition(".")
        siblings = next((fused for fused in _FUSED if last in fused), (last,))
        members = tuple(parent + dot + sibling for sibling in siblings if parent + dot + sibling in known)
        taken.update(members)
        result.append(members)
    return result


def _group_name(modules: tuple[str, ...]) -> str:
    """`...self_attn.qkv_proj` for fused modules, `embed_tokens+lm_head` for tied ones, else the module's own name."""
    if len(modules) == 1:
        return modules[0]
    parent, dot, _ = modules[0].rpartition(".")
    lasts = [module.rpartition(".")[2] for module in modules]
    if all(re.fullmatch(r"[qkv]_proj", last) for last in lasts):
        return f"{parent}{dot}qkv_proj"
    return f"{parent}{dot}{'+'.join(lasts)}"
