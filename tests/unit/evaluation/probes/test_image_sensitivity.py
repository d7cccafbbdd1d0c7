"""A model that looks is told from one that does not."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from foveal.evaluation.probes.image_sensitivity import Probed, measure_image_sensitivity
from foveal.evaluation.probes.replace_picture import blank_picture, partners, shuffled_picture
from foveal.evaluation.suite import Suite, SuiteSize
from support.evaluated_models import SeeingModel
from support.tiny_models import tiny_image

SMALL = SuiteSize(
    name="small",
    pictures={"shapes": 6, "bars": 6},
    easy_vqa_pictures=0,
    questions_per_task=50,
    captions_per_task=50,
    text_tokens=64,
    probed_pictures=6,
)
SUITE = Suite(SMALL)


def probed() -> list[Probed]:
    return [
        Probed(item.kind, item.picture(), tuple((q.text, q.answer, SUITE.alternatives[q.task]) for q in item.questions))
        for item in SUITE.probed()
    ]


def test_a_seeing_model_loses_its_accuracy_with_the_picture() -> None:
    found = measure_image_sensitivity(SeeingModel(SUITE), probed(), max_tokens=8)
    assert found.accuracy == 1.0
    for dependence in (found.blank, found.shuffled):
        assert dependence.answers == 1.0
        assert dependence.accuracy == 0.0
        assert dependence.kl is not None
        assert dependence.kl > 1
        assert len(dependence.changed) == found.items
    assert found.swap.answers > 0.9


def test_a_blind_model_says_the_same_to_every_picture() -> None:
    found = measure_image_sensitivity(SeeingModel(SUITE, blind=True), probed(), max_tokens=8)
    for dependence in (found.swap, found.blank, found.shuffled):
        assert dependence.answers == 0.0
        assert dependence.kl == 0.0
        assert dependence.accuracy == found.accuracy


def test_one_picture_cannot_be_swapped() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        measure_image_sensitivity(SeeingModel(SUITE), probed()[:1], max_tokens=8)


def test_each_picture_is_swapped_for_another_of_its_kind() -> None:
    kinds = ["a", "b", "a", "a", "b", "c"]
    found = partners(kinds)
    assert all(other != index for index, other in enumerate(found))
    assert [kinds[i] for i in found[:5]] == kinds[:5]
    assert found[5] == 0


def _sorted_pixels(picture: Image.Image) -> np.ndarray:
    return np.sort(np.asarray(picture).reshape(-1, 3), axis=0)


def test_shuffling_keeps_every_pixel_and_moves_most() -> None:
    picture = tiny_image(3, (64, 48))
    shuffled = shuffled_picture(picture, 1)
    assert np.array_equal(_sorted_pixels(shuffled), _sorted_pixels(picture))
    assert shuffled.tobytes() != picture.tobytes()
    assert shuffled.tobytes() == shuffled_picture(picture, 1).tobytes()
    assert shuffled.tobytes() != shuffled_picture(picture, 2).tobytes()


def test_a_blank_picture_has_the_same_size() -> None:
    assert blank_picture(tiny_image(0, (30, 20))).size == (30, 20)


def test_a_picture_smaller_than_the_grid_is_blanked() -> None:
    assert shuffled_picture(Image.new("RGB", (4, 4)), 0).getpixel((0, 0)) == (255, 255, 255)
