"""A checkpoint loads completely or fails with the reason and a remedy."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from foveal.core.errors import ConfigurationError, ModelLoadError
from foveal.models.loading import load_model, load_processor
from foveal.models.registry import supported_model_types
from support.tiny_models import FAMILIES, FUSED_FAMILIES, tiny_checkpoint


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """A private copy that a test may damage."""
    return Path(shutil.copytree(tiny_checkpoint("llama"), tmp_path / "llama"))


def edit_config(checkpoint: Path, **values: object) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def edit_weights(checkpoint: Path, edit) -> None:
    path = checkpoint / "model.safetensors"
    weights = load_file(path)
    edit(weights)
    save_file(weights, path, metadata={"format": "pt"})


def test_every_family_has_a_tiny_checkpoint():
    assert sorted(FAMILIES) == list(supported_model_types())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_from_a_directory(family):
    model = load_model(tiny_checkpoint(family))

    assert model.spec.model_type == family
    assert (model.spec.num_layers, model.spec.vocab_size, model.spec.eos_token_ids) == (3, 280, (258,))
    assert (model.fused is not None) == (family in FUSED_FAMILIES)


def test_an_unknown_model_type_names_the_supported_ones(checkpoint):
    edit_config(checkpoint, model_type="mamba")
    with pytest.raises(ModelLoadError, match=r"'mamba'.*Supported: gemma3, gpt2, .*smolvlm"):
        load_model(checkpoint)


def test_a_missing_directory_and_one_without_config_are_told_apart(tmp_path):
    with pytest.raises(ModelLoadError, match="there is no directory"):
        load_model(tmp_path / "nothing")
    with pytest.raises(ModelLoadError, match=r"has no config\.json"):
        load_processor(tmp_path)


def test_missing_weights_are_reported(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match=r"safetensors"):
        load_model(checkpoint)


def test_pickled_weights_are_not_read(checkpoint):
    weights = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    torch.save(weights, checkpoint / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="safetensors"):
        load_model(checkpoint)


def test_a_truncated_safetensors_file_is_reported(checkpoint):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelLoadError, match="damaged"):
        load_model(checkpoint)


def test_a_missing_tensor_is_named(checkpoint):
    edit_weights(checkpoint, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ModelLoadError, match=r"missing: model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(checkpoint)


def test_an_unexpected_tensor_is_named(checkpoint):
    edit_weights(checkpoint, lambda weights: weights.update({"model.layers.9.extra": torch.ones(2)}))
    with pytest.raises(ModelLoadError, match=r"unexpected: model\.layers\.9\.extra"):
        load_model(checkpoint)


def test_a_tensor_of_another_shape_is_refused(checkpoint):
    edit_weights(checkpoint, lambda weights: weights.update({"model.norm.weight": torch.ones(3)}))
    with pytest.raises(ModelLoadError, match=r"mismatched: model\.norm\.weight is \(3,\), not \(64,\)"):
        load_model(checkpoint)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_tensor_with_nan_or_infinity_is_named(checkpoint, bad):
    edit_weights(checkpoint, lambda weights: weights["model.layers.2.self_attn.k_proj.weight"][0].fill_(bad))
    with pytest.raises(ModelLoadError, match=r"layers\.2\.self_attn\.k_proj\.weight .*NaN or infinity"):
        load_model(checkpoint)


def test_fusing_a_stack_of_another_shape_is_refused():
    with pytest.raises(ConfigurationError, match="'fused' was asked for"):
        load_model(tiny_checkpoint("gpt2"), decoder="fused")


def test_a_float16_checkpoint_runs_in_float32(checkpoint):
    edit_weights(checkpoint, lambda weights: weights.update({k: v.half() for k, v in weights.items()}))
    edit_config(checkpoint, dtype="float16")
    assert load_model(checkpoint).dtype == torch.float32


def test_bfloat16_can_be_demanded(checkpoint):
    assert load_model(checkpoint, dtype="bfloat16").dtype == torch.bfloat16


def test_a_processor_crosses_to_a_worker_by_name():
    processor = load_processor(tiny_checkpoint("qwen2_5_vl"), chat_template="{{ messages[0].content }}")

    pickled = pickle.dumps(processor)
    twin = pickle.loads(pickled)

    assert len(pickled) < 1000
    assert twin.apply_chat_template([{"role": "user", "content": "hi"}]) == "hi"
    assert twin.tokenize("hi") == processor.tokenize("hi")
