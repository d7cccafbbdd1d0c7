"""Shards hold every tensor once, stay under their size, and have the same bytes every time."""

from __future__ import annotations

import errno
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file

from foveal.compression.formats import shards
from foveal.compression.formats.shards import clear_shards, write_shards


@settings(deadline=None, max_examples=25)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8), limit=st.integers(1, 100))
def test_every_tensor_is_in_the_file_that_the_index_names(sizes, limit, tmp_path_factory):
    directory = tmp_path_factory.mktemp("shards")
    tensors = {f"t{number}": torch.randn(size) for number, size in enumerate(sizes)}

    files = write_shards(directory, tensors.items(), max_shard_bytes=4 * limit)

    stored = {path.name: load_file(path) for path in files if path.suffix == ".safetensors"}
    assert {path.name for path in directory.iterdir()} == {path.name for path in files}
    if len(stored) == 1:
        where = dict.fromkeys(tensors, "model.safetensors")
    else:
        index = json.loads((directory / "model.safetensors.index.json").read_text())
        where = index["weight_map"]
        assert index["metadata"]["total_size"] == 4 * sum(sizes)
        assert all(len(held) == 1 or sum(t.nbytes for t in held.values()) <= 4 * limit for held in stored.values())
    assert sorted(where) == sorted(tensors)
    assert all(torch.equal(stored[where[name]][name], tensor) for name, tensor in tensors.items())


def test_views_are_stored_as_what_they_show(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    write_shards(tmp_path, [("column", whole[:, 1]), ("rows", whole[1:])])
    stored = load_file(tmp_path / "model.safetensors")
    assert torch.equal(stored["column"], whole[:, 1])
    assert torch.equal(stored["rows"], whole[1:])


def test_leftovers_of_an_interrupted_write_are_cleared_and_nothing_else(tmp_path):
    ours = ["model-00001.safetensors", "model-00002-of-00003.safetensors", "model.safetensors.index.json"]
    others = ["tokenizer.json", "adapter_model.safetensors"]
    for name in ours + others:
        (tmp_path / name).touch()
    clear_shards(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_a_full_disk_is_an_os_error(tmp_path, monkeypatch):
    def full(*args, **options):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(shards, "save_file", full)
    with pytest.raises(OSError) as error:
        write_shards(tmp_path, [("a", torch.ones(1))])
    assert error.value.errno == errno.ENOSPC
