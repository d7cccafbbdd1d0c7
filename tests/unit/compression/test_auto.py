"""Needs in, recipe and reasons out."""

from __future__ import annotations

from functools import cache

import pytest

from foveal.compression.allocation_recipe import mixed_recipe
from foveal.compression.auto import Machine, Needs, choose_recipe
from foveal.compression.budget import solve
from foveal.compression.components import Component
from foveal.compression.groups import DecisionGroup, ModelLayout
from foveal.compression.recipe_reader import recipe_from
from foveal.compression.recipe_resolution import resolve
from foveal.compression.sensitivity_table import Measurement, SensitivityTable
from foveal.core.errors import ConfigurationError
from foveal.core.model_spec import ModelSpec
from foveal.kernels.quantisation.scheme import parse_linear

_SPEC = ModelSpec("llava", 6, 8, 2, 64, 512, 8192, 4096, (2,), 512)
_MACHINE = Machine(bandwidth_bytes_per_s=10e9)


def _group(
    name: str, component: Component, layer: int | None, *shapes: tuple[int, int], tied: bool = False
) -> DecisionGroup:
    return DecisionGroup(name, component, layer, tuple(name.split(" ")), shapes, tied)


@cache
def _layout() -> ModelLayout:
    """A small LLaVA with tied embeddings: 6 blocks of 512, a tower of 3 blocks of 256."""
    groups = []
    for layer in range(3):
        name = f"model.vision_tower.layers.{layer}"
        groups.append(_group(f"{name}.self_attn.q_proj", "vision", layer, (768, 256)))
        groups.append(_group(f"{name}.mlp.fc1", "vision", layer, (1024, 256)))
    groups.append(_group("model.projector.linear_1", "projector", None, (512, 256)))
    groups.append(_group("model.embed_tokens lm_head", "embedding", None, (8192, 512), tied=True))
    for layer in range(6):
        name = f"model.layers.{layer}"
        groups.append(
            _group(f"{name}.self_attn.q_proj {name}.self_attn.k_proj", "attention", layer, (512, 512), (128, 512))
        )
        groups.append(_group(f"{name}.mlp.gate_proj {name}.mlp.up_proj", "ffn", layer, (1536, 512), (1536, 512)))
        groups.append(_group(f"{name}.mlp.down_proj", "ffn", layer, (512, 1536)))
    return ModelLayout(tuple(groups), fixed_bytes=100_000)


@cache
def _table(scale: float = 1.0) -> SensitivityTable:
    """Early blocks hurt most; 8 bits do a hundredth of the damage of 4."""
    rows = []
    for group in _layout().groups:
        hurt = scale * 0.01 / (1 + (group.layer or 0)) * (5 if group.component in ("projector", "embedding") else 1)
        for scheme, share in (("int4-g64", 1.0), ("int8", 0.01)):
            rows.append(
                Measurement(group.name, group.component, group.layer, scheme, hurt * share, 0.0, 4.0, hurt * share, 0.1)
            )
    return SensitivityTable("model", "samples", 16, 60, 4.0, tuple(rows), 1.0)


@pytest.mark.parametrize("share", [0.3, 0.4, 0.55, 0.8])
def test_a_mixed_recipe_does_what_the_budget_decided(share: float) -> None:
    layout = _layout()
    budget = int(share * layout.base_bytes)
    mixed = mixed_recipe(layout, _table(), budget)
    decisions = resolve(mixed.recipe, layout)
    options = _table().options_for(layout)
    chosen = solve(options, budget - layout.fixed_bytes).choice
    expected = [group[index].label for group, index in zip(options, chosen, strict=True)]
    assert [one.rule.scheme.name if one.rule.scheme else "keep" for one in decisions] == expected
    stored = layout.fixed_bytes + sum(one.stored_bytes for one in decisions)
    assert stored == mixed.stored_bytes <= budget
    assert recipe_from(mixed.recipe.to_dict()) == mixed.recipe


def test_mixed_by_sensitivity_beats_uniform_at_equal_bytes() -> None:
    layout, table = _layout(), _table()
    uniform = sum(one.damage for one in table.measurements if one.scheme == "int4-g64" and one.component == "ffn")
    int4 = parse_linear("int4-g64")
    sized = layout.bytes_with([int4 if group.component == "ffn" else None for group in layout.groups])
    assert mixed_recipe(layout, table, sized).damage < uniform


def test_a_budget_below_the_least_size_names_it_for_the_whole_model() -> None:
    with pytest.raises(ConfigurationError, match=r"smallest choice for every group comes to .*% of the 16-bit size"):
        mixed_recipe(_layout(), _table(), 1_000_000)


def test_a_budget_above_sixteen_bits_leaves_nothing_to_choose() -> None:
    with pytest.raises(ConfigurationError, match="nothing needs to be quantised"):
        mixed_recipe(_layout(), _table(), _layout().base_bytes)


def test_without_a_table_the_best_keeping_preset_that_fits_is_taken() -> None:
    layout = _layout()
    roomy = choose_recipe(_SPEC, layout, Needs(memory_bytes=layout.base_bytes))
    assert roomy.recipe.name == "auto-w8a16"
    tight = choose_recipe(_SPEC, layout, Needs(memory_bytes=int(0.5 * layout.base_bytes), quality_floor=0.9))
    assert tight.recipe.name == "auto-vlm-mixed"
    assert tight.stored_bytes <= 0.5 * layout.base_bytes
    assert any("too large: w8a16" in reason for reason in tight.reasons)
    assert any("not measured on this model" in reason for reason in tight.reasons)


def test_kv_cache_takes_its_share_of_the_memory() -> None:
    layout = _layout()
    needs = Needs(memory_bytes=layout.base_bytes, kv_tokens=layout.base_bytes // 2 // _SPEC.kv_bytes_per_token(2))
    choice = choose_recipe(_SPEC, layout, needs, table=_table())
    assert choice.stored_bytes <= layout.base_bytes // 2 + _SPEC.kv_bytes_per_token(2)
    assert any("tokens of KV cache" in reason for reason in choice.reasons)


def test_integer_products_make_rounded_inputs_worth_it() -> None:
    layout = _layout()
    needs = Needs(memory_bytes=layout.base_bytes)
    choice = choose_recipe(_SPEC, layout, needs, machine=Machine(10e9, int8_products=True))
    assert choice.recipe.name == "auto-w8a8"


def test_a_latency_target_limits_what_is_read_per_token_not_the_tower() -> None:
    layout = _layout()
    whole = choose_recipe(_SPEC, layout, Needs(memory_bytes=2 * layout.base_bytes), machine=_MACHINE, table=_table())
    assert whole.token_latency_s is not None
    target = 0.0011
    fast = choose_recipe(
        _SPEC, layout, Needs(token_latency_s=target, quality_floor=0.5), machine=_MACHINE, table=_table()
    )
    assert fast.token_latency_s is not None
    assert fast.token_latency_s <= target
    kept = [one for one in resolve(fast.recipe, layout) if one.group.component == "vision"]
    assert all(one.rule.scheme is None for one in kept)


def test_both_limits_hold_together() -> None:
    layout = _layout()
    needs = Needs(memory_bytes=int(0.35 * layout.base_bytes), token_latency_s=0.0012, quality_floor=0.5)
    choice = choose_recipe(_SPEC, layout, needs, machine=_MACHINE, table=_table())
    assert choice.stored_bytes <= needs.memory_bytes
    assert choice.token_latency_s is not None
    assert choice.token_latency_s <= 0.0012


def test_without_limits_the_smallest_model_above_the_floor_is_chosen() -> None:
    sizes = []
    for floor in (0.9, 0.97, 0.995):
        choice = choose_recipe(_SPEC, _layout(), Needs(quality_floor=floor), table=_table())
        assert choice.expected_quality >= floor
        sizes.append(choice.stored_bytes)
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_needs_that_contradict_each_other_name_the_best_that_can_be_had() -> None:
    layout = _layout()
    needs = Needs(memory_bytes=int(0.35 * layout.base_bytes), quality_floor=0.999)
    with pytest.raises(ConfigurationError, match=r"quality must stay at 99.9% .* the best recipe keeps an expected"):
        choose_recipe(_SPEC, layout, needs, table=_table())
    with pytest.raises(ConfigurationError, match=r"no preset fits .* measure sensitivity"):
        choose_recipe(_SPEC, layout, Needs(memory_bytes=layout.base_bytes // 10))
    with pytest.raises(ConfigurationError, match="Lower the floor"):
        choose_recipe(_SPEC, layout, Needs(quality_floor=0.999), table=_table(1e4))


def test_every_rule_of_the_choice_has_its_reason() -> None:
    choice = choose_recipe(_SPEC, _layout(), Needs(quality_floor=0.97), table=_table())
    for rule in choice.recipe.rules:
        assert any(str(rule) in reason for reason in choice.reasons)


@pytest.mark.parametrize(
    ("needs", "message"),
    [({"quality_floor": 1.5}, "not a share"), ({"memory_bytes": 0}, "above 0"), ({"token_latency_s": -1.0}, "above 0")],
)
def test_impossible_needs_are_refused(needs: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Needs(**needs)  # type: ignore[arg-type]


def test_a_latency_target_needs_the_machine() -> None:
    with pytest.raises(ConfigurationError, match="bandwidth"):
        choose_recipe(_SPEC, _layout(), Needs(token_latency_s=0.01))
