"""The evaluation record survives being written and read."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from foveal.core.errors import ConfigurationError
from foveal.evaluation.evaluation_result import (
    Agreement,
    Evaluation,
    ImageSensitivity,
    MeasuredModel,
    Perplexity,
    PictureDependence,
    SampleAnswer,
    TaskResult,
)

FULL = Evaluation(
    model=MeasuredModel(name="tiny", digest="sha256:00"),
    suite="standard seed=0",
    tasks={"shapes": TaskResult(per_item=(True, False, True), items_digest="abc")},
    perplexity=Perplexity(value=12.5, tokens=30, window_nll=(40.1, 35.7), window_tokens=(16, 14)),
    agreement=Agreement(greedy_exact=0.9, top1=0.97, items=3),
    image_sensitivity=ImageSensitivity(
        swap=PictureDependence(answers=0.6, kl=1.5, accuracy=0.2),
        blank=PictureDependence(answers=0.7, kl=2.0),
        shuffled=PictureDependence(answers=0.5, kl=1.1),
        items=10,
    ),
    samples=(SampleAnswer(task="shapes", question="What?", reference="a", candidate="b", base="a"),),
    not_measured={"speed": "asked to skip"},
)


def test_a_record_comes_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    FULL.write(path)
    assert Evaluation.read(path) == FULL


def test_accuracy_is_the_share_of_correct_items() -> None:
    assert FULL.tasks["shapes"].accuracy == pytest.approx(2 / 3)
    assert TaskResult(per_item=()).accuracy == 0.0


def test_another_file_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"model": 3}')
    with pytest.raises(ConfigurationError, match=r"other\.json is not an evaluation record"):
        Evaluation.read(path)


def test_a_later_schema_is_refused() -> None:
    later = FULL.to_json().replace(b'"schema_version": 1', b'"schema_version": 9')
    with pytest.raises(ConfigurationError, match="schema version 9"):
        Evaluation.from_json(later)


def test_windows_without_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 window sums for 1"):
        Perplexity(value=1.0, tokens=3, window_nll=(1.0, 2.0), window_tokens=(3,))


def test_a_value_that_is_not_finite_becomes_none_and_survives(tmp_path: Path) -> None:
    broken = replace(FULL, perplexity=Perplexity(value=math.inf, tokens=3, window_nll=(math.nan,), window_tokens=(3,)))
    assert broken.perplexity is not None
    assert broken.perplexity.value is None
    assert broken.perplexity.window_tokens == ()
    assert Evaluation.from_json(broken.to_json()) == broken


def test_the_passport_gets_neither_pictures_nor_text_windows() -> None:
    plain = FULL.for_passport()
    assert plain["samples"] == ()
    assert plain["perplexity"]["window_nll"] == ()
    assert plain["tasks"]["shapes"]["per_item"] == (True, False, True)
