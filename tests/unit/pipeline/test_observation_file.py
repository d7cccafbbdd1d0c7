"""A kept observation is the same as a fresh one, and is found only for the same question to the same model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from foveal.evaluation.observation import Observation, compare, observe
from foveal.evaluation.suite import Suite, SuiteSize
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
