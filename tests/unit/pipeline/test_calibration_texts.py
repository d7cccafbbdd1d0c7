"""Texts beside the pictures of a calibration: where they come from, and what perplexity must not have seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.artifacts.pinned_wheel import PinnedSourceError
from foveal.compression.calibration_inputs import prepare_samples
from foveal.core.errors import ConfigurationError
from foveal.evaluation.suite import DEFAULT, QUICK
from foveal.models.loading import load_processor
from foveal.pipeline import calibration_texts as module
from foveal.pipeline.calibration_texts import OWN, WIKI_SUMMARIES, calibration_texts, passages
from support.tiny_models import build_tiny_checkpoint


@given(number=st.integers(1, 20), characters=st.integers(5, 60), extra=st.integers(0, 300))
def test_passages_lie_in_the_text_in_order_and_never_overlap(number: int, characters: int, extra: int) -> None:
    words = " ".join(f"w{index}" for index in range(number * characters + extra))
    at = 0
    for passage in passages(words, number, "words", characters=characters):
        assert 0 < len(passage) <= characters
        at = words.index(passage, at) + len(passage)


def test_a_text_that_is_too_short_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("A page, no more.")
    with pytest.raises(ConfigurationError, match=r"holds 16 characters; 64 passages of 1,000 need 64,000"):
        calibration_texts(str(tmp_path / "short.txt"), tmp_path, 64)


def test_passages_of_a_file_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("word " * 4000)
    found = calibration_texts(str(tmp_path / "long.txt"), tmp_path, 8)
    assert len(found) == 8
    assert {(sample.picture, sample.question, sample.task) for sample in found} == {(None, "", "text")}
    processor = load_processor(build_tiny_checkpoint("llava", tmp_path / "model"))
    (prepared,) = prepare_samples(found[:1], processor)
    assert list(prepared.prompt.token_ids) == processor.prepare(found[0].answer, []).token_ids
    assert not prepared.image_mask.any()
    assert prepared.answer_mask.sum() == prepared.num_tokens - 1


def test_summaries_leave_the_beginning_to_perplexity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(f"sentence {index:07d}. " for index in range(200_000))
    (tmp_path / "wiki.txt").write_text(text)
    monkeypatch.setattr(module, "fetch_wiki_summaries", lambda cache_dir: tmp_path / "wiki.txt")
    read_by_perplexity = 16 * max(DEFAULT.text_tokens, QUICK.text_tokens)
    assert read_by_perplexity < len(text) // 4
    for sample in calibration_texts(WIKI_SUMMARIES, tmp_path, 64):
        assert text.index(sample.answer) >= len(text) // 4


def test_the_model_writes_its_own_texts_where_asked(tmp_path: Path) -> None:
    model = build_tiny_checkpoint("llava", tmp_path / "model")
    found = calibration_texts(OWN, model, 2, cache_dir=tmp_path)
    assert all(sample.question and sample.picture is None for sample in found)
    assert calibration_texts(OWN, model, 0) == ()


def test_without_network_the_other_sources_of_text_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(cache_dir: Path | None = None) -> Path:
        raise PinnedSourceError("pip could not download it")

    monkeypatch.setattr(module, "fetch_wiki_summaries", offline)
    with pytest.raises(PinnedSourceError, match=r"--texts-from FILE.*--texts-from own.*--texts 0"):
        calibration_texts(WIKI_SUMMARIES, tmp_path, 4)
