"""Pruned models are plain, smaller, and unchanged where nothing was lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, GPT2Config, GPT2LMHeadModel

from foveal.compression.training.decoder_stack import find_decoder_stack
from foveal.compression.training.layer_importance import layer_importance, without_layer
from foveal.compression.training.prune import Kept, PruneTarget, prune, slim
from foveal.core.errors import ConfigurationError
from support.counting_llama import counting_batches, mean_loss, tiny_llama, trained_llama
from support.tiny_checkpoints import tiny_hf_model


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=counting_batches(1, seed=9)[0]["input_ids"]).logits


def everything(model: torch.nn.Module) -> Kept:
    stack = find_decoder_stack(model)
    layers = range(len(stack.layers))
    return Kept(
        tuple(layers),
        tuple(tuple(range(stack.kv_groups)) for _ in layers),
        tuple(tuple(range(stack.ffn_channels)) for _ in layers),
    )


def test_channels_with_zero_weights_go_first_and_the_output_stays() -> None:
    model = tiny_llama()
    dead = {0: (3, 40), 1: (0, 1), 2: (20, 47)}
    with torch.no_grad():
        for number, channels in dead.items():
            model.model.layers[number].mlp.down_proj.weight[:, list(channels)] = 0
            model.model.layers[number].mlp.up_proj.weight[list(channels)] = 0
    smaller, kept = prune(model, counting_batches(3), PruneTarget(ffn_channels=46))
    assert [set(range(48)) - set(channels) for channels in kept.ffn_channels] == [set(c) for c in dead.values()]
    torch.testing.assert_close(logits(smaller), logits(model), atol=1e-5, rtol=1e-5)


def test_an_attention_group_that_says_nothing_goes_and_the_output_stays() -> None:
    model = tiny_llama()
    with torch.no_grad():
        for layer, group in zip(model.model.layers, (0, 1, 0), strict=True):
            layer.self_attn.o_proj.weight[:, 16 * group : 16 * group + 16] = 0
    smaller, kept = prune(model, counting_batches(3), PruneTarget(kv_groups=1))
    assert kept.kv_groups == ((1,), (0,), (1,))
    assert (smaller.config.num_attention_heads, smaller.config.num_key_value_heads, smaller.config.head_dim) == (
        2,
        1,
        8,
    )
    torch.testing.assert_close(logits(smaller), logits(model), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("measure", ["cosine", "divergence"])
def test_a_layer_that_does_nothing_is_the_one_removed(measure: str) -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight.zero_()
        model.model.layers[1].mlp.down_proj.weight.zero_()
    smaller, kept = prune(model, counting_batches(2), PruneTarget(layers=2), layer_measure=measure)  # type: ignore[arg-type]
    assert kept.layers == (0, 2)
    torch.testing.assert_close(logits(smaller), logits(model), atol=1e-5, rtol=1e-5)


def test_the_importance_of_a_layer_is_what_the_output_loses_without_it() -> None:
    model = tiny_llama()
    stack = find_decoder_stack(model)
    (batch,) = counting_batches(1)
    found = layer_importance(model, stack, [batch], "divergence")
    with torch.no_grad():
        whole = model(**batch).logits.log_softmax(-1).flatten(0, 1)
        with without_layer(stack.layers[1]):
            less = model(**batch).logits.log_softmax(-1).flatten(0, 1)
    torch.testing.assert_close(found[1].float(), (whole.exp() * (whole - less)).sum(-1).mean(), atol=1e-5, rtol=1e-4)


def test_the_smaller_model_is_written_and_loaded_as_a_plain_checkpoint(tmp_path: Path) -> None:
    model = tiny_llama()
    smaller, _ = prune(model, counting_batches(2), PruneTarget(layers=2, kv_groups=1, ffn_channels=16))
    smaller.save_pretrained(tmp_path)
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert loaded.num_parameters() < model.num_parameters() / 2
    torch.testing.assert_close(logits(loaded), logits(smaller))


def test_pruning_by_saliency_hurts_less_than_pruning_what_matters_most() -> None:
    model = trained_llama()
    held_out = counting_batches(6, seed=5)
    samples = counting_batches(12, seed=6, rows=1)
    kept_best, kept = prune(model, samples, PruneTarget(ffn_channels=24))
    rest = tuple(tuple(sorted(set(range(48)) - set(channels))) for channels in kept.ffn_channels)
    kept_worst = slim(model, Kept(kept.layers, kept.kv_groups, rest))
    assert mean_loss(kept_best, held_out) < mean_loss(kept_worst, held_out)


def test_the_original_is_not_changed() -> None:
    model = tiny_llama()
    before = logits(model)
    smaller, _ = prune(model, counting_batches(1), PruneTarget(layers=1, ffn_channels=8))
    with torch.no_grad():
        for parameter in smaller.parameters():
            parameter.zero_()
    torch.testing.assert_close(logits(model), before)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "smolvlm", "internvl", "qwen3"])
def test_families_lose_layers_and_channels_and_reload(family: str, tmp_path: Path) -> None:
    model = tiny_hf_model(family)
    kept = everything(model)
    few = Kept(kept.layers[1:], kept.kv_groups[1:], tuple(channels[::2] for channels in kept.ffn_channels[1:]))
    smaller = slim(model, few)
    smaller.save_pretrained(tmp_path)
    loader = AutoModelForCausalLM if family == "qwen3" else AutoModelForImageTextToText
    loaded, info = loader.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert loaded.config.get_text_config().num_hidden_layers == len(kept.layers) - 1
    torch.testing.assert_close(logits(loaded), logits(smaller))


def test_heads_of_a_vision_language_model_can_go(tmp_path: Path) -> None:
    model = tiny_hf_model("llava")
    kept = everything(model)
    smaller = slim(model, Kept(kept.layers, tuple((1,) for _ in kept.layers), kept.ffn_channels))
    smaller.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert loaded.config.text_config.num_key_value_heads == 1
    torch.testing.assert_close(logits(loaded), logits(smaller))


@pytest.mark.parametrize("target", [PruneTarget(layers=4), PruneTarget(kv_groups=0), PruneTarget(ffn_channels=49)])
def test_impossible_sizes_are_refused(target: PruneTarget) -> None:
    with pytest.raises(ConfigurationError, match="was asked to keep"):
        prune(tiny_llama(), counting_batches(1), target)


def test_other_architectures_are_refused_with_the_reason() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=40, n_positions=16))
    with pytest.raises(ConfigurationError, match="Llama-shaped"):
        find_decoder_stack(model)
