"""Texts that the model writes for its own calibration."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from foveal.compression.calibration import CalibrationSet
from foveal.compression.recipe import CalibrationPlan
from foveal.core.errors import ConfigurationError
from foveal.pipeline import own_texts as module
from foveal.pipeline.compress import calibration_for
from foveal.pipeline.own_texts import MAX_OWN_TEXTS, own_texts
from support.tiny_checkpoints import build_tiny_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_checkpoint("llava", tmp_path_factory.mktemp("own-texts") / "model")


def test_texts_are_the_models_answers_and_are_written_once(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = own_texts(model, 5, cache_dir=tmp_path)
    assert {sample.task for sample in first} <= {""}
    assert all(sample.picture is None and sample.answer for sample in first)
    monkeypatch.setattr(module, "TransformersEvaluatedModel", None)  # loading the model again would fail
    assert own_texts(model, 5, cache_dir=tmp_path) == first


def test_a_damaged_cache_is_written_anew(model: Path, tmp_path: Path) -> None:
    first = own_texts(model, 3, cache_dir=tmp_path)
    (path,) = (tmp_path / "own-texts").iterdir()
    path.write_text("{")
    assert own_texts(model, 3, cache_dir=tmp_path) == first


def test_requests_differ_and_more_than_there_are_is_an_error(model: Path) -> None:
    assert len(set(module._requests(MAX_OWN_TEXTS))) == MAX_OWN_TEXTS
    with pytest.raises(ConfigurationError, match=str(MAX_OWN_TEXTS)):
        own_texts(model, MAX_OWN_TEXTS + 1)


def test_calibration_mixes_texts_between_the_pictures_and_at_most_one_for_two(model: Path, tmp_path: Path) -> None:
    mixed = calibration_for(CalibrationPlan(samples=16, texts=64, texts_from="own"), model, cache_dir=tmp_path)
    texts = [number for number, sample in enumerate(mixed.samples) if sample.picture is None]
    assert 0 < len(texts) <= 8
    assert max(later - earlier for earlier, later in itertools.pairwise(texts)) <= 4
    mixed.refuse_unfit()
    pictures = [sample for sample in mixed.samples if sample.picture is not None]
    alone = CalibrationSet.from_rendered_tasks(16)
    assert CalibrationSet(tuple(pictures), "").digest == alone.digest != mixed.digest


def test_without_texts_the_pictures_are_left_as_they_are(model: Path) -> None:
    alone = CalibrationSet.from_rendered_tasks(16)
    assert calibration_for(CalibrationPlan(samples=16, texts=0), model).digest == alone.digest
    assert alone.with_texts(()) is alone
