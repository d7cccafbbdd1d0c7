"""The draft's file and the checkpoint that is assembled from it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from foveal.compression.training.decoder_stack import find_decoder_stack
from foveal.compression.training.prune import Kept, slim
from foveal.demo.draft import weights
from foveal.demo.draft.assemble import MANIFEST, assemble_draft
from foveal.demo.draft.target import load_target
from foveal.demo.draft.weights import load_draft, save_draft
from foveal.demo.errors import ModelSourceError
from support.tiny_draft_target import tiny_target
from support.tiny_models import tiny_checkpoint


@pytest.fixture(scope="module")
def target_dir() -> Path:
    return tiny_checkpoint("llava")


def cut(language: LlamaForCausalLM) -> LlamaForCausalLM:
    stack = find_decoder_stack(language)
    channels = tuple(range(0, stack.ffn_channels, 2))
    return slim(language, Kept((0,), (tuple(range(stack.kv_groups)),), (channels,)))


@pytest.fixture
def file(tmp_path: Path, target_dir: Path) -> Path:
    path = tmp_path / "draft.safetensors"
    save_draft(path, cut(load_target(target_dir).language), {"steps": "1"})
    return path


def test_a_saved_draft_loads_with_the_targets_embedding(tmp_path: Path) -> None:
    target = tiny_target()
    draft = cut(target.language)
    save_draft(tmp_path / "draft.safetensors", draft, {})
    loaded = load_draft(tmp_path / "draft.safetensors", target.language)
    ids = torch.arange(9)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, draft(ids).logits, atol=3e-2, rtol=3e-2)
    assert loaded.lm_head.weight.data_ptr() == loaded.get_input_embeddings().weight.data_ptr()
    assert torch.equal(loaded.lm_head.weight, target.language.lm_head.weight)


def test_too_large_drafts_and_huge_values_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = cut(tiny_target().language)
    with monkeypatch.context() as patch:
        patch.setattr(weights, "LIMIT_BYTES", 1000)
        with pytest.raises(ModelSourceError, match="Take fewer layers"):
            save_draft(tmp_path / "d.safetensors", draft, {})
    with torch.no_grad():
        draft.model.norm.weight[0] = 1e6
    with pytest.raises(ModelSourceError, match="do not fit into fp16"):
        save_draft(tmp_path / "d.safetensors", draft, {})


def test_a_draft_of_another_target_is_refused(file: Path) -> None:
    with pytest.raises(ModelSourceError, match="does not fit the target"):
        load_draft(file, tiny_target().language)


def test_the_checkpoint_loads_in_plain_transformers(file: Path, tmp_path: Path, target_dir: Path) -> None:
    directory = assemble_draft(tmp_path / "draft", target_dir, file)
    loaded, info = AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert loaded.config.model_type == "llama"
    assert loaded.config.num_hidden_layers == 1
    target = load_target(target_dir).language
    assert torch.equal(loaded.get_input_embeddings().weight, target.get_input_embeddings().weight)
    assert (directory / "tokenizer.json").is_file()


def test_a_second_run_writes_nothing_and_new_weights_replace_old(file: Path, tmp_path: Path, target_dir: Path) -> None:
    directory = assemble_draft(tmp_path / "draft", target_dir, file)
    before = (directory / MANIFEST).stat().st_mtime_ns
    assemble_draft(tmp_path / "draft", target_dir, file)
    assert (directory / MANIFEST).stat().st_mtime_ns == before
    other = tmp_path / "other.safetensors"
    draft = cut(load_target(target_dir).language)
    with torch.no_grad():
        draft.model.norm.weight += 1
    save_draft(other, draft, {})
    assemble_draft(tmp_path / "draft", target_dir, other)
    loaded = AutoModelForCausalLM.from_pretrained(directory)
    torch.testing.assert_close(loaded.model.norm.weight, draft.model.norm.weight, atol=1e-2, rtol=1e-2)


def test_foreign_folders_missing_targets_and_missing_weights_are_named(
    file: Path, tmp_path: Path, target_dir: Path
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("dear to me")
    with pytest.raises(ModelSourceError, match="1 files that are not a draft"):
        assemble_draft(tmp_path / "thesis", target_dir, file)
    with pytest.raises(ModelSourceError, match="is not a checkpoint"):
        assemble_draft(tmp_path / "draft", tmp_path / "nothing", file)
    with pytest.raises(ModelSourceError, match="is missing"):
        assemble_draft(tmp_path / "draft", target_dir, tmp_path / "none.safetensors")


def test_a_damaged_manifest_means_writing_again(file: Path, tmp_path: Path, target_dir: Path) -> None:
    directory = assemble_draft(tmp_path / "draft", target_dir, file)
    (directory / MANIFEST).write_text("{")
    with warnings.catch_warnings():
        assemble_draft(directory, target_dir, file)
    assert json.loads((directory / MANIFEST).read_text())["identity"]
