"""A kept observation is the same as a fresh one, and is found only for the same question to the same model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foveal.evaluation.observation import Observation, compare, observe
from foveal.evaluation.suite import Suite, SuiteSize
from foveal.pipeline import observation_file
from foveal.pipeline.observation_file import observation_path, read_observation, write_observation
from support.evaluated_models import SeeingModel

SUITE = Suite(
    SuiteSize(
        name="small",
        pictures={"shapes": 3},
        easy_vqa_pictures=0,
        questions_per_task=4,
        captions_per_task=1,
        text_tokens=0,
        probed_pictures=2,
    )
)


def observed() -> Observation:
    return observe(SeeingModel(SUITE), SUITE, running=False)


def test_written_and_read_it_compares_as_before(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "base.npz"
    write_observation(path, observed())
    found = read_observation(path)
    assert found is not None
    assert found.evaluation == observed().evaluation
    assert found.answers == observed().answers
    assert found.top1 == observed().top1
    np.testing.assert_array_equal(found.logits, observed().logits)
    assert compare(observed(), found) == compare(observed(), observed())


def test_a_damaged_or_missing_file_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "base.npz"
    assert read_observation(path) is None
    write_observation(path, observed())
    path.write_bytes(path.read_bytes()[:-200])
    assert read_observation(path) is None
    path.write_text("not an archive")
    assert read_observation(path) is None


def test_weights_questions_and_number_format_each_have_their_own_file(tmp_path: Path) -> None:
    paths = {
        observation_path(tmp_path, digest, suite, dtype)
        for digest in ("a", "b")
        for suite in ("default", "quick")
        for dtype in ("auto", "float32")
    }
    assert len(paths) == 8


def test_a_change_of_the_code_that_computes_answers_has_its_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = observation_path(tmp_path, "a", "default", "auto")
    for package in observation_file._ANSWERING:
        (tmp_path / "foveal" / package).mkdir(parents=True)
        (tmp_path / "foveal" / package / "module.py").write_text("before")
    monkeypatch.setattr(observation_file, "__file__", str(tmp_path / "foveal" / "pipeline" / "observation_file.py"))
    seen = {here, observation_path(tmp_path, "a", "default", "auto")}
    (tmp_path / "foveal" / "models" / "module.py").write_text("after")
    seen.add(observation_path(tmp_path, "a", "default", "auto"))
    assert len(seen) == 3


def test_a_cache_on_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space"):
        write_observation(tmp_path / "base.npz", observed())
    assert list(tmp_path.iterdir()) == []
