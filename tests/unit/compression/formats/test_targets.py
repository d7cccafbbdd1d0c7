"""Expressions in a quantization_config match the modules they are for, under every name, and no other."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.compression.formats.targets import match_expressions, matches
from foveal.core.errors import IntegrityError

TEXT = [f"model.language_model.layers.{i}.{part}" for i in range(12) for part in ("self_attn.q_proj", "mlp.up_proj")]
TOWER = [f"model.vision_tower.encoder.layers.{i}.{part}" for i in range(3) for part in ("self_attn.q_proj", "mlp.fc1")]
REST = ["lm_head", "model.multi_modal_projector.linear_1", "model.language_model.embed_tokens"]
MODULES = TEXT + TOWER + REST


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from(["a", "b", "kept"]), min_size=len(MODULES), max_size=len(MODULES)))
def test_any_partition_of_the_modules_is_told_apart(labels):
    groups = {label: [name for name, of in zip(MODULES, labels, strict=True) if of == label] for label in "ab"}
    others = [name for name, of in zip(MODULES, labels, strict=True) if of == "kept"]

    expressions = match_expressions(groups, others)

    for group, names in groups.items():
        assert [name for name in MODULES if matches(name, expressions[group])] == names


@pytest.mark.parametrize(
    "name",
    [
        "model.vision_tower.encoder.layers.1.self_attn.q_proj",  # transformers 5
        "vision_tower.vision_model.encoder.layers.1.self_attn.q_proj",  # in LLaVA's files
        "vision_tower.encoder.layers.1.self_attn.q_proj",
    ],
)
def test_tower_and_text_are_told_apart_in_every_naming(name):
    expressions = match_expressions({"tower": TOWER, "text": TEXT})
    assert matches(name, expressions["tower"])
    assert not matches(name, expressions["text"])


@pytest.mark.parametrize(
    "name",
    [
        "model.language_model.layers.11.self_attn.q_proj",
        "language_model.model.layers.11.self_attn.q_proj",
        "model.layers.11.self_attn.q_proj",
    ],
)
def test_text_layers_match_in_every_naming(name):
    expressions = match_expressions({"text": TEXT}, TOWER + REST)["text"]
    assert matches(name, expressions)
    assert not matches("vision_tower." + name, expressions)


def test_layer_1_is_not_layer_11():
    expressions = match_expressions({"first": TEXT[2:4]}, TEXT[:2] + TEXT[4:])["first"]
    assert matches("model.language_model.layers.1.mlp.up_proj", expressions)
    assert not matches("model.language_model.layers.11.mlp.up_proj", expressions)


def test_all_layers_of_a_kind_become_one_expression():
    (expression,) = match_expressions({"all": TEXT[::2]}, TEXT[1::2] + TOWER + REST)["all"]
    assert r"layers\.\d+\." in expression


def test_an_index_at_the_end_does_not_match_the_activation_between():
    linears = ["model.visual.merger.mlp.0", "model.visual.merger.mlp.2"]
    expressions = match_expressions({"all": linears}, ["model.visual.merger.mlp.1"])["all"]
    assert not matches("model.visual.merger.mlp.1", expressions)


def test_modules_that_no_name_tells_apart_are_refused():
    with pytest.raises(IntegrityError, match="no regular expression"):
        match_expressions({"a": ["model.layers.0.up"], "b": ["layers.0.up"]})
