"""Data of a suite: by path, by download, or left out with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from foveal.artifacts.pinned_wheel import PinnedSourceError
from foveal.core.errors import ConfigurationError
from foveal.evaluation.suite import QUICK
from foveal.pipeline import suite_data
from foveal.pipeline.suite_data import resolve_suite


def test_what_cannot_be_downloaded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object) -> Path:
        raise PinnedSourceError("no network\nand more lines")

    monkeypatch.setattr(suite_data, "fetch", offline)
    monkeypatch.setattr(suite_data, "fetch_wiki_summaries", offline)
    suite = resolve_suite(QUICK, cache_dir=tmp_path)
    assert suite.easy_vqa is None
    assert suite.text is None
    assert suite.missing == {
        "easy_vqa": "it could not be downloaded: no network",
        "perplexity": "it could not be downloaded: no network",
    }


def test_paths_are_taken_as_they_are_and_none_is_none(tmp_path: Path) -> None:
    text = tmp_path / "english.txt"
    text.write_text("Some English.")
    suite = resolve_suite(QUICK, easy_vqa="none", text=str(text))
    assert suite.text == text
    assert suite.missing == {"easy_vqa": "left out on demand"}


def test_a_path_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"there is no /no/such\.txt"):
        resolve_suite(QUICK, easy_vqa="none", text="/no/such.txt")
