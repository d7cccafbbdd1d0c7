"""The digest that calibrations are found by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from foveal.artifacts.shape_digest import shape_digest


def _model(directory: Path, weight: np.ndarray, config: str = "{}") -> Path:
    directory.mkdir()
    (directory / "config.json").write_text(config)
    save_file({"weight": weight}, directory / "model.safetensors")
    return directory


def test_fine_tunes_of_one_model_share_a_digest_and_other_shapes_do_not(tmp_path: Path) -> None:
    base = shape_digest(_model(tmp_path / "a", np.zeros((4, 4), np.float32)))
    assert shape_digest(_model(tmp_path / "b", np.ones((4, 4), np.float32))) == base
    assert shape_digest(_model(tmp_path / "c", np.zeros((4, 8), np.float32))) != base
    assert shape_digest(_model(tmp_path / "d", np.zeros((4, 4), np.int8))) != base
    assert shape_digest(_model(tmp_path / "e", np.zeros((4, 4), np.float32), '{"layers": 2}')) != base


def test_hub_ids_stand_for_themselves() -> None:
    assert shape_digest("org/one") != shape_digest("org/two")
