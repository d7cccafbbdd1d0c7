"""What a wish for a recipe is refused for before anything is measured, and that a rerun chooses alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from foveal.core.errors import ConfigurationError
from foveal.pipeline import recipe_choice
from foveal.pipeline.recipe_choice import RecipeWish, choose
from support.tiny_models import tiny_checkpoint


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (RecipeWish("w8a16", memory="9MB"), "--memory would choose them"),
        (RecipeWish("auto", budget="60%", memory="9MB"), "Give one or the other"),
        (RecipeWish("auto", budget="60%", token_latency_ms=3.0), "Give one or the other"),
        (RecipeWish("auto", budget="lots"), "is not a size"),
        (RecipeWish("auto", memory="lots"), "is not a size"),
        (RecipeWish("auto", token_latency_ms=-3.0), "must be above 0"),
        (RecipeWish("auto", quality_floor=98.0), "is not a share"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused_before_the_measurement(
    wish: RecipeWish, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe_choice, "measure_sensitivity", None)
    with pytest.raises(ConfigurationError, match=message):
        choose(wish, tiny_checkpoint("llava"))


def test_the_bandwidth_is_measured_once_so_that_a_rerun_chooses_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = iter([3e9, 4e9, 5e9])
    monkeypatch.setattr(recipe_choice, "_measured_bandwidth", lambda: next(speeds))
    assert [recipe_choice._read_bandwidth(tmp_path / "cache") for _ in range(2)] == [3e9, 3e9]
    next((tmp_path / "cache").iterdir()).write_text("{")
    assert recipe_choice._read_bandwidth(tmp_path / "cache") == 4e9
    assert recipe_choice._read_bandwidth(None) == 5e9
