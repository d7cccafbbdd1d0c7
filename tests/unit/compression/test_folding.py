"""Folding any positive scale into a model leaves what it computes as it was."""

from __future__ import annotations

import pytest
import torch
import transformers as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.dinov2.modeling_dinov2 import Dinov2Layer
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from foveal.compression.capture import parts_of
from foveal.compression.folding import fold_scale
from foveal.compression.mappings import mappings_of
from foveal.compression.prefill import build_step, encode
from foveal.models.language_model import TransformersModel
from support.prefill_once import prefill_batch, prefill_once
from support.step_driver import new_kv_cache
from support.tiny_models import TEXT_FAMILIES, VISION_FAMILIES, tiny_cases, tiny_model

FOLDABLE = [name for name in (*VISION_FAMILIES, *TEXT_FAMILIES) if name != "gpt2"]


def blocks_of(model: TransformersModel):
    network = model.hf_model
    chains, singles = parts_of(network, None)
    return [block for chain in chains for block in chain] + singles


def fold_everything(model: TransformersModel, seed: int) -> int:
    generator = torch.Generator().manual_seed(seed)
    count = 0
    for block in blocks_of(model):
        for mapping in mappings_of(block.module).mappings:
            size = int(mapping.channels.max()) + 1
            fold_scale(block.module, mapping, torch.exp(torch.randn(size, generator=generator)))
            count += 1
    return count


@pytest.mark.parametrize("family", FOLDABLE)
@given(seed=st.integers(0, 1000))
@settings(max_examples=2, deadline=None)
def test_a_model_with_folded_scales_computes_the_same(family, seed):
    prompt = tiny_cases(family)[0].prompt
    model = tiny_model(family, "hf")
    before = prefill_once(model, prompt)

    count = fold_everything(model, seed)

    after = prefill_once(model, prompt)
    # Three decoder layers of four mappings each, and the tower's.
    assert count >= 12 + (6 if family in VISION_FAMILIES else 0)
    assert (after - before).abs().max() < 2e-3 * before.abs().max()


@torch.inference_mode()
@pytest.mark.parametrize("gated", [False, True])
def test_dinov2_layers_fold_beside_their_layer_scale(gated):
    config = tf.Dinov2Config(hidden_size=32, num_attention_heads=2, num_hidden_layers=1, use_swiglu_ffn=gated)
    config._attn_implementation = "sdpa"
    layer = Dinov2Layer(config).eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    inputs = torch.randn(2, 9, 32)
    before = layer(inputs)
    found = mappings_of(layer)

    for mapping in found.mappings:
        fold_scale(layer, mapping, torch.exp(torch.randn(int(mapping.channels.max()) + 1)))

    assert len(found.mappings) == (4 if gated else 3)
    assert set(found.unscaled) == (set() if gated else {"mlp.fc2"})
    assert torch.allclose(layer(inputs), before, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("family", FOLDABLE)
def test_every_linear_is_covered_by_a_mapping_or_says_why_not(family):
    for block in blocks_of(tiny_model(family, "hf")):
        linears = {name for name, module in block.module.named_modules() if isinstance(module, torch.nn.Linear)}
        found = mappings_of(block.module)
        covered = {name for mapping in found.mappings for name in mapping.consumers}
        assert covered | found.unscaled.keys() == linears
        assert not covered & found.unscaled.keys()
        if block.name != "lm_head" and "vision_tower.head" not in block.name:
            assert not [reason for reason in found.unscaled.values() if reason.startswith("no scale mapping")]


def test_gpt2_is_left_alone_with_the_reason():
    found = mappings_of(GPT2Block(tf.GPT2Config(n_embd=8, n_head=2), layer_idx=0))
    assert found.mappings == ()
    assert set(found.unscaled) == {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}
    assert all("Conv1D" in reason for reason in found.unscaled.values())


def test_an_unknown_block_is_not_scaled():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(2, 2)

    assert mappings_of(Odd()).unscaled == {"inner": "no scale mapping is written for Odd"}


def test_a_driver_cache_of_another_block_size_gives_the_same_hidden_states():
    # The scratch cache shares one layer's memory between layers; a cache per layer must not differ.
    prompt = tiny_cases("llava")[0].prompt
    model = tiny_model("llava", "hf")
    batch = prefill_batch(prompt)
    step = build_step(model, batch, encode(model, batch))
    cache = new_kv_cache(model, 512)
    cache.block_size = 16
    assert torch.allclose(model.forward(step, cache), prefill_once(model, prompt), atol=1e-6)
