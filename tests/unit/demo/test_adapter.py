"""The adapter file: folding, merging, names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foveal.demo.adapter import fold_feature_scale, load_adapter, save_adapter
from foveal.demo.errors import ModelSourceError
from foveal.demo.training.export import low_rank_names, projector_names


def test_folding_moves_the_feature_scale_into_the_first_linear() -> None:
    torch.manual_seed(0)
    features, mean, deviation = torch.randn(5, 6) * 3 + 1, torch.randn(6), torch.rand(6) + 0.5
    state = {"linear_1.weight": torch.randn(4, 6), "linear_1.bias": torch.randn(4)}
    folded = fold_feature_scale(state, mean, deviation)
    expected = torch.nn.functional.linear((features - mean) / deviation, *state.values())
    found = torch.nn.functional.linear(features, folded["linear_1.weight"], folded["linear_1.bias"])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_saved_adapter_loads_as_full_size_updates(tmp_path: Path) -> None:
    down, up = torch.randn(2, 8), torch.randn(6, 2)
    path = tmp_path / "adapter.safetensors"
    low_rank = {"layers.0.mlp.up_proj.lora_A": down, "layers.0.mlp.up_proj.lora_B": up}
    save_adapter(path, {"linear_2.bias": torch.ones(3)}, low_rank, {"steps": "1"})
    projector, updates = load_adapter(path)
    assert list(projector) == ["linear_2.bias"]
    torch.testing.assert_close(updates["layers.0.mlp.up_proj.weight"], up @ down, atol=2e-2, rtol=2e-2)


def test_values_beyond_half_precision_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelSourceError, match="do not fit into fp16"):
        save_adapter(tmp_path / "a.safetensors", {"linear_1.bias": torch.tensor([1e6])}, {}, {})


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ModelSourceError, match="is missing"):
        load_adapter(tmp_path / "none.safetensors")


def test_training_names_become_transformers_names() -> None:
    one = torch.ones(1)
    assert set(projector_names({"0.weight": one, "2.bias": one})) == {"linear_1.weight", "linear_2.bias"}
    state = {
        "layers.3.updates.q_proj.down": one,
        "layers.3.updates.q_proj.up": one,
        "layers.11.updates.up_proj.up": one,
    }
    named = low_rank_names(state, scale=2.0)
    assert set(named) == {
        "layers.3.self_attn.q_proj.lora_A",
        "layers.3.self_attn.q_proj.lora_B",
        "layers.11.mlp.up_proj.lora_B",
    }
    assert named["layers.3.self_attn.q_proj.lora_A"].item() == 2.0
