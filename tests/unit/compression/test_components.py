"""Where each matrix of every family belongs, and which of them are decided together."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import transformers as tf

from foveal.compression.components import COMPONENTS, blocks_of, component_of, layer_of, matrices, structural_reason
from foveal.compression.groups import ModelLayout, fitting, layout_of
from foveal.core.errors import ConfigurationError
from foveal.kernels.quantisation.scheme import parse_linear, parse_weight
from support.tiny_checkpoints import tiny_hf_model
from support.tiny_models import FAMILIES, VISION_FAMILIES

_model = cache(tiny_hf_model)


@cache
def _layout(family: str) -> ModelLayout:
    return layout_of(_model(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_part_of_every_family_is_found(family: str) -> None:
    expected = set(COMPONENTS if family in VISION_FAMILIES else COMPONENTS[2:])
    if family == "gemma3":
        expected.remove("projector")  # a bare parameter, no matrix of its own module
    if family in ("qwen3", "internvl", "gpt2"):
        expected.remove("head")  # the embedding's tensor
    assert {group.component for group in _layout(family).groups} == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_is_in_one_group_or_fixed(family: str) -> None:
    layout, model = _layout(family), _model(family)
    assert layout.base_bytes == 2 * sum(parameter.numel() for parameter in model.parameters())
    named = [module for group in layout.groups for module in group.modules]
    assert len(named) == len(set(named))
    assert set(named) == {name for name, _, _ in matrices(model)}


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_counted_in_their_own_stack(family: str) -> None:
    groups = _layout(family).groups
    for part in ("attention", "ffn"):
        assert {group.layer for group in groups if group.component == part} == {0, 1, 2}
    assert {group.layer for group in groups if group.component in ("projector", "embedding", "head")} <= {None}
    if family in VISION_FAMILIES:
        depth = len(blocks_of(_model(family), "vision"))
        assert {group.layer for group in groups if group.component == "vision"} == set(range(depth))
    assert len(blocks_of(_model(family), "language")) == 3


@pytest.mark.parametrize(
    ("family", "name", "component", "layer"),
    [
        ("llava", "model.vision_tower.encoder.layers.2.self_attn.q_proj", "vision", 2),
        ("llava", "model.vision_tower.embeddings.patch_embedding", "vision", None),
        ("llava", "model.multi_modal_projector.linear_1", "projector", None),
        ("llava", "lm_head", "head", None),
        ("qwen2_5_vl", "model.visual.merger.mlp.0", "projector", None),
        ("qwen2_5_vl", "model.visual.blocks.1.attn.qkv", "vision", 1),
        ("qwen3_vl", "model.visual.deepstack_merger_list.0.linear_fc1", "projector", None),
        ("idefics3", "model.connector.modality_projection.proj", "projector", None),
        ("idefics3", "model.text_model.layers.1.mlp.up_proj", "ffn", 1),
        ("internvl", "model.vision_tower.encoder.layer.0.attention.projection_layer", "vision", 0),
        ("gemma3", "model.language_model.layers.0.self_attn.o_proj", "attention", 0),
        ("qwen3", "model.embed_tokens", "embedding", None),
        ("gpt2", "transformer.h.1.attn.c_attn", "attention", 1),
        ("gpt2", "transformer.h.1.mlp.c_fc", "ffn", 1),
        ("gpt2", "transformer.wpe", "embedding", None),
    ],
)
def test_modules_by_name(family: str, name: str, component: str, layer: int | None) -> None:
    assert component_of(name, _model(family)) == component
    assert layer_of(name) == layer


def test_unknown_part_is_refused_not_guessed() -> None:
    with pytest.raises(ConfigurationError, match="audio_tower"):
        component_of("model.audio_tower.layers.0.fc1", _model("llava"))


def test_query_key_value_and_gate_up_are_decided_together() -> None:
    groups = {group.name: group for group in _layout("llava").groups}
    qkv = groups["model.language_model.layers.1.self_attn.qkv_proj"]
    assert [module.rpartition(".")[2] for module in qkv.modules] == ["q_proj", "k_proj", "v_proj"]
    assert qkv.shapes == ((64, 64), (32, 64), (32, 64))
    assert "model.language_model.layers.1.mlp.gate_proj+up_proj" in groups
    assert "model.vision_tower.encoder.layers.0.self_attn.qkv_proj" in groups


def test_tied_embedding_and_head_are_one_tensor() -> None:
    (group,) = (group for group in _layout("qwen3").groups if group.tied)
    assert group.modules == ("model.embed_tokens", "lm_head")
    assert group.shapes == ((280, 64),)
    assert not any(group.tied for group in _layout("llama").groups)


def test_gpt2_shapes_are_those_of_the_linear_map() -> None:
    shapes = {group.name: group.shapes for group in _layout("gpt2").groups}
    assert shapes["transformer.h.0.attn.c_attn"] == ((192, 64),)
    assert shapes["transformer.h.0.mlp.c_proj"] == ((64, 256),)


def test_what_never_runs_or_cannot_be_replaced_is_left_out_with_a_reason() -> None:
    model = _model("gemma3")
    left_out = {
        name: reason
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and (reason := structural_reason(name, model))
    }
    assert set(left_out) == {
        "model.vision_tower.head.attention.out_proj",
        "model.vision_tower.head.mlp.fc1",
        "model.vision_tower.head.mlp.fc2",
    }
    assert all("never runs" in reason for reason in left_out.values())


def test_bytes_follow_the_scheme() -> None:
    layout = _layout("llama")
    group = next(group for group in layout.groups if group.name.endswith("layers.0.mlp.down_proj"))
    assert group.shapes == ((64, 96),)
    assert group.stored_bytes(None) == 64 * 96 * 2
    assert group.stored_bytes(parse_linear("int8")) == 64 * 96 + 64 * 2
    assert group.stored_bytes(parse_linear("int4-g32")) == 64 * 96 // 2 + 64 * 3 * 2
    assert layout.bytes_with([None] * len(layout.groups)) == layout.base_bytes


def test_group_size_falls_back_to_one_that_divides_the_input() -> None:
    assert fitting(parse_weight("int4-g128"), 576).group == 64
    assert fitting(parse_weight("int4-g128"), 96).group == 32
    assert fitting(parse_weight("int4-g128"), 50).group is None
    with pytest.raises(ConfigurationError, match="no blocks"):
        fitting(parse_weight("nf4-g64"), 50)


def test_layout_needs_no_weights() -> None:
    with torch.device("meta"):
        empty = tf.AutoModelForCausalLM.from_config(_model("llama").config)
    assert layout_of(empty) == _layout("llama")
