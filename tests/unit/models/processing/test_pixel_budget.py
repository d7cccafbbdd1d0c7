"""`detail` bounds what a picture costs."""

from __future__ import annotations

import pytest
from PIL import Image

from foveal.core.errors import InvalidRequestError
from foveal.models.processing.pixel_budget import check_detail, fit_to_budget


def test_a_picture_within_the_budget_is_left_alone():
    image = Image.new("RGB", (512, 512))
    assert fit_to_budget(image, "low") is image


@pytest.mark.parametrize(("detail", "most"), [("low", 262_144), ("auto", 1_572_864)])
def test_a_larger_picture_shrinks_to_the_budget_and_keeps_its_shape(detail, most):
    fitted = fit_to_budget(Image.new("RGB", (3000, 1500)), detail)

    assert 0.98 * most < fitted.width * fitted.height <= most
    assert fitted.width / fitted.height == pytest.approx(2, rel=0.01)


def test_high_detail_leaves_the_size_to_the_checkpoint():
    assert fit_to_budget(Image.new("RGB", (3000, 1500)), "high").size == (3000, 1500)


def test_an_extremely_long_picture_keeps_at_least_one_pixel_of_height():
    assert fit_to_budget(Image.new("RGB", (1_000_000, 1)), "low").height == 1


def test_an_unknown_detail_is_refused():
    with pytest.raises(InvalidRequestError, match="must be auto, low or high"):
        check_detail("ultra")
