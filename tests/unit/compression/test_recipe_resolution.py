"""A recipe applied to a model: whole groups, or an error that names what would be split."""

from __future__ import annotations

from functools import cache

import pytest

from foveal.compression.groups import ModelLayout, layout_of
from foveal.compression.recipe import Recipe
from foveal.compression.recipe_presets import load_recipe, preset_names
from foveal.compression.recipe_reader import recipe_from
from foveal.compression.recipe_resolution import resolve, rules_by_module
from foveal.core.errors import ConfigurationError
from support.tiny_checkpoints import tiny_hf_model
from support.tiny_models import FAMILIES


@cache
def _layout(family: str) -> ModelLayout:
    return layout_of(tiny_hf_model(family))


def _recipe(*rules: dict[str, object], **top: object) -> Recipe:
    return recipe_from({"rules": [{"reason": "because"} | rule for rule in rules]} | top)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_preset_fits_every_family(family: str) -> None:
    layout = _layout(family)
    for name in preset_names():
        decisions = resolve(load_recipe(name), layout)
        assert [decision.group for decision in decisions] == list(layout.groups)
        stored = layout.fixed_bytes + sum(decision.stored_bytes for decision in decisions)
        assert stored < layout.base_bytes


def test_splitting_query_key_value_is_refused() -> None:
    recipe = _recipe(
        {"modules": r"[qk]_proj", "keep": True}, {"component": "attention", "method": "rtn", "scheme": "int8"}
    )
    with pytest.raises(ConfigurationError, match=r"splits a fused group: .*q_proj gets keep, .*v_proj gets rtn int8"):
        resolve(recipe, _layout("llama"))


def test_tied_weights_need_one_decision_or_a_word_whose() -> None:
    rules = (
        {"component": "embedding", "method": "rtn", "scheme": "int8"},
        {"component": "ffn", "method": "rtn", "scheme": "int8"},
    )
    with pytest.raises(ConfigurationError, match=r"splits tied weights.*tied_embedding: embedding"):
        resolve(_recipe(*rules), _layout("qwen3"))
    by_embedding = rules_by_module(_recipe(*rules, tied_embedding="embedding"), _layout("qwen3"))
    assert by_embedding["lm_head"].method == by_embedding["model.embed_tokens"].method == "rtn"
    assert "one tensor with lm_head" in by_embedding["lm_head"].reason
    by_head = rules_by_module(_recipe(*rules, tied_embedding="head"), _layout("qwen3"))
    assert by_head["lm_head"].method == by_head["model.embed_tokens"].method == "keep"


def test_rules_that_agree_need_no_word_about_tied_weights() -> None:
    recipe = _recipe({"component": ["embedding", "head"], "method": "rtn", "scheme": "int8"})
    assert rules_by_module(recipe, _layout("qwen3"))["lm_head"].method == "rtn"


def test_untied_embedding_and_head_may_differ() -> None:
    recipe = _recipe({"component": "embedding", "method": "rtn", "scheme": "int8"})
    rules = rules_by_module(recipe, _layout("llama"))
    assert (rules["model.embed_tokens"].method, rules["lm_head"].method) == ("rtn", "keep")


def test_a_recipe_that_quantises_nothing_is_refused() -> None:
    recipe = _recipe({"component": "vision", "method": "rtn", "scheme": "int8"})
    with pytest.raises(ConfigurationError, match=r"quantises nothing.*the model has .*attention \(layers 0-2\)"):
        resolve(recipe, _layout("llama"))


@pytest.mark.parametrize("condition", [{"layers": "40-50"}, {"modules": "query_projection"}])
def test_a_rule_that_matches_nothing_is_a_mistake(condition: dict[str, object]) -> None:
    recipe = _recipe(condition | {"method": "rtn", "scheme": "int8"}, {"method": "rtn", "scheme": "int8"})
    with pytest.raises(
        ConfigurationError, match=r"rule 1 .* matches nothing of this model.*(inside the model|lm_head)"
    ):
        resolve(recipe, _layout("llama"))
