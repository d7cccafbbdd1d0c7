"""Thresholds: defaults from the design, changes from YAML, mistakes named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from foveal.core.errors import ConfigurationError
from foveal.evaluation.thresholds import FOUR_BIT, INT8, thresholds_for
from foveal.evaluation.thresholds_file import read_thresholds


@pytest.mark.parametrize(("bits", "profile"), [(3, "4-bit"), (4, "4-bit"), (6, "INT8"), (8, "INT8"), (None, "INT8")])
def test_the_narrowest_layer_chooses_the_profile(bits: int | None, profile: str) -> None:
    assert thresholds_for(bits)[0] == profile


def test_the_default_limits() -> None:
    assert (FOUR_BIT.perplexity_percent, FOUR_BIT.task_points) == (3.0, 1.5)
    assert (INT8.perplexity_percent, INT8.task_points) == (0.5, 0.5)
    assert FOUR_BIT.image_sensitivity_kept == INT8.image_sensitivity_kept == 0.9


def test_yaml_changes_both_profiles_or_one(tmp_path: Path) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text(
        "image_sensitivity_kept: 0.95\nsize_ratio: null\n4-bit:\n  task_points: 1\n  points_by_task: {shapes/count: 3}\n"
    )
    read = read_thresholds(path)
    assert read["INT8"] == replace(INT8, image_sensitivity_kept=0.95, size_ratio=None)
    assert read["4-bit"] == replace(
        FOUR_BIT, image_sensitivity_kept=0.95, size_ratio=None, task_points=1.0, points_by_task={"shapes/count": 3.0}
    )
    assert read["4-bit"].task_limit("shapes/count") == 3.0
    assert read["4-bit"].task_limit("easy-vqa") == 1.0


def test_an_empty_file_leaves_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text("")
    assert read_thresholds(path) == {"4-bit": FOUR_BIT, "INT8": INT8}


def test_a_wider_limit_takes_its_ceiling_along(tmp_path: Path) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text("task_points: 10")
    assert read_thresholds(path)["4-bit"].task_ceiling_points == pytest.approx(10 * 10 / 1.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task_point: 1", "did you mean task_points"),
        ("task_points: -1", "must be at least 0"),
        ("task_points: .nan", "must be at least 0"),
        ("task_points: '1'", "write a number"),
        ("task_points: true", "write a number"),
        ("task_points: null", "write a number"),
        ("image_sensitivity_kept: 90", "between 0 and 1"),
        ("accept_undecided: maybe", "write true or false"),
        ("resamples: 1.5", "whole number"),
        ("resamples: 3", "at least 100"),
        ("confidence: 1", "below 1"),
        ("points_by_task: 3", "write `task: points`"),
        ("points_by_task: {a: b}", r"points_by_task\.a is 'b'"),
        ("4-bit: 3", "4-bit holds a int"),
        ("task_points: 5\ntask_ceiling_points: 4", "must be at least task_points"),
        ("- 1", "holds a list"),
        ("a: [", "is not YAML"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_a_mistake_names_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_thresholds(path)
    assert "gate.yaml" in str(caught.value)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_thresholds(tmp_path / "none.yaml")
