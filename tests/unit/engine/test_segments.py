"""Pixels cross through segments unchanged, and segments do not pile up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from foveal.engine import segments
from foveal.engine.segments import read_segment, unlink_segment, write_segment
from foveal.models.image_input import ImageInput

SHAPES = hnp.array_shapes(max_dims=4, max_side=5)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["pixel_values", "image_grid_thw", "mask"]),
            hnp.arrays(st.sampled_from([np.float32, np.int64, np.bool_]), SHAPES, elements={"allow_nan": False}),
            min_size=1,
        ),
        min_size=1,
        max_size=4,
    )
)  # fmt: skip
def test_arrays_come_back_equal(tmp_path_factory: pytest.TempPathFactory, images: list[dict[str, np.ndarray]]) -> None:
    directory = tmp_path_factory.mktemp("segments")
    inputs = [ImageInput(arrays, 4, 16, bytes([k] * 16)) for k, arrays in enumerate(images)]
    name, packed = write_segment(directory, inputs)
    found = read_segment(directory, name, packed)
    unlink_segment(directory, name)
    assert not list(directory.iterdir())
    for before, after in zip(inputs, found, strict=True):
        assert (before.num_tokens, before.content_hash) == (after.num_tokens, after.content_hash)
        for key, array in before.arrays.items():
            np.testing.assert_array_equal(after.arrays[key], array)
            assert after.arrays[key].dtype == array.dtype


def test_a_request_without_images_writes_no_segment(tmp_path: Path) -> None:
    assert write_segment(tmp_path, []) == (None, ())
    assert read_segment(tmp_path, None, ()) == ()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_half_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(array: np.ndarray) -> np.ndarray:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(segments.np, "ascontiguousarray", full)
    with pytest.raises(OSError, match="No space"):
        write_segment(tmp_path, [ImageInput({"pixel_values": np.zeros(3)}, 1, 1, b"")])
    assert not list(tmp_path.iterdir())


def test_directories_of_dead_front_ends_are_removed_and_of_living_ones_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    monkeypatch.setattr(segments, "_root", lambda: tmp_path)
    dead = tmp_path / f"foveal-{child.stdout.strip()}-x"
    alive = segments.create_segment_directory()
    dead.mkdir()
    segments.remove_stale_directories()
    assert alive.exists()
    assert not dead.exists()
