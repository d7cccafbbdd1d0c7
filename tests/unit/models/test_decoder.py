"""The fused decoder: transformers' numbers over transformers' own weights, without a second copy of them."""

from __future__ import annotations

import re

import pytest
import torch

from foveal.core.errors import ConfigurationError
from foveal.kernels.attention_batch import AttentionBatch
from foveal.models.base import ModelStep
from foveal.models.decoder import FusedDecoder, unsupported_reason
from foveal.models.language_model import TransformersModel
from foveal.models.native_decoder import native_unsupported_reason
from support.step_driver import BLOCK_SIZE, new_kv_cache
from support.tiny_checkpoints import tiny_hf_model
from support.tiny_models import FAMILIES, FUSED_FAMILIES, VISION_FAMILIES, tiny_image, tiny_model, tiny_processor


def prefill(model: TransformersModel) -> torch.Tensor:
    """Final hidden states [T, hidden] of one prompt, with an image where the family takes one."""
    family = model.family.model_type
    processor = tiny_processor(family)
    parts = [{"type": "text", "text": "a picture: "}, {"type": "image"}] if family in VISION_FAMILIES else []
    messages = [{"role": "user", "content": [*parts, {"type": "text", "text": "what is it?"}]}]
    images = [tiny_image(0)] if parts else []
    prompt = processor.prepare(processor.apply_chat_template(messages), images)
    length = len(prompt.token_ids)
    positions, _ = model.rope_positions(prompt)
    mask, features = None, None
    if images:
        mask = torch.zeros(length, dtype=torch.bool)
        for span in prompt.spans:
            mask[span.offset : span.offset + span.length] = True
        features = torch.cat(model.encode_images(prompt.images))
    blocks = torch.arange(-(-length // BLOCK_SIZE))[None]
    batch = AttentionBatch(torch.arange(length), blocks, [0, length], [length])
    return model.forward(
        ModelStep(torch.tensor(prompt.token_ids), positions, mask, features, batch), new_kv_cache(model)
    )


@pytest.mark.parametrize("family", FUSED_FAMILIES)
def test_hidden_states_equal_those_of_transformers_decoder(family):
    fused, oracle = tiny_model(family, "fused"), tiny_model(family, "hf")
    assert (fused.fused is not None, oracle.fused) == (True, None)
    torch.testing.assert_close(prefill(fused), prefill(oracle), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in FUSED_FAMILIES])
def test_a_stack_of_another_shape_falls_back_and_cannot_be_forced(family):
    assert unsupported_reason(tiny_hf_model(family).get_decoder())
    assert tiny_model(family).fused is None
    with pytest.raises(ConfigurationError, match=r"not Llama-shaped: .*Use decoder 'auto'"):
        tiny_model(family, "fused")
    with pytest.raises(ValueError, match="cannot fuse"):
        FusedDecoder(tiny_hf_model(family).get_decoder())


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_weights_are_adopted_and_not_copied(family):
    """Every projection of the transformers model is a view into one of the packed matrices."""
    stack = tiny_hf_model(family).get_decoder()
    fused = FusedDecoder(stack)
    for layer, packed in zip(stack.layers, fused.layers, strict=True):
        attention, mlp = layer.self_attn, layer.mlp
        for modules, linear in (
            ([attention.q_proj, attention.k_proj, attention.v_proj], packed.qkv),
            ([attention.o_proj], packed.out),
            ([mlp.gate_proj, mlp.up_proj], packed.gate_up),
            ([mlp.down_proj], packed.down),
        ):
            assert sum(module.out_features for module in modules) == linear.out_features
            for name in ("weight", "bias"):
                whole, offset = getattr(linear, name), 0
                for part in [getattr(module, name) for module in modules if getattr(module, name) is not None]:
                    assert part.data_ptr() == whole.data_ptr() + offset * whole.element_size()
                    offset += part.numel()
                assert offset == (0 if whole is None else whole.numel())


def test_transformers_decoder_still_gives_its_own_numbers_after_adoption():
    model = tiny_hf_model("qwen3_vl")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        before = model(input_ids=ids).logits
        FusedDecoder(model.get_decoder())
        after = model(input_ids=ids).logits
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def _no_rotary(stack):
    del stack.rotary_emb


def _extra_part(stack):
    stack.layers[1].mlp.extra_norm = torch.nn.LayerNorm(4)


def _other_norm(stack):
    stack.layers[0].input_layernorm = torch.nn.LayerNorm(64)


def _one_bias(stack):
    stack.layers[2].self_attn.q_proj.bias = torch.nn.Parameter(torch.zeros(64))


def _soft_cap(stack):
    stack.layers[0].self_attn.attn_logit_softcapping = 50.0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_no_rotary, "not a stack of layers with one rotary"),
        (_extra_part, r"unknown parts \['extra_norm'\]"),
        (_other_norm, "LayerNorm is not a plain RMSNorm"),
        (_one_bias, "only some of the q, k and v projections have a bias"),
        (_soft_cap, "soft-capped"),
    ],
)
def test_whatever_the_fused_decoder_does_not_compute_is_recognised(change, reason):
    stack = tiny_hf_model("llama").get_decoder()
    assert unsupported_reason(stack) is None
    change(stack)
    found = unsupported_reason(stack)
    assert found is not None
    assert re.search(reason, found)


@pytest.mark.parametrize("biased", ["gate_proj", "up_proj"])
def test_one_bias_of_gate_and_up_is_not_left_out_by_the_kernels(biased):
    stack = tiny_hf_model("llama").get_decoder()
    projection = getattr(stack.layers[1].mlp, biased)
    projection.bias = torch.nn.Parameter(torch.zeros(projection.out_features))
    assert "bias" in (native_unsupported_reason(stack) or "")
