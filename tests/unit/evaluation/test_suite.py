"""The suite asks every model the same, and the observation records what it said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foveal.core.errors import ConfigurationError
from foveal.evaluation.observation import compare, observe
from foveal.evaluation.suite import DEFAULT, QUICK, Suite, SuiteSize, is_caption
from foveal.evaluation.text_corpus import read_text
from support.evaluated_models import SeeingModel

SMALL = SuiteSize(
    name="small",
    pictures={"shapes": 5, "relations": 3, "text": 3, "bars": 4},
    easy_vqa_pictures=0,
    questions_per_task=9,
    captions_per_task=3,
    text_tokens=200,
    probed_pictures=8,
    divergence_questions=10,
    window=64,
    stride=32,
)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "english.txt"
    path.write_text("The sea is wide and the ship is small. " * 40)
    return path


def test_two_suites_of_one_size_and_seed_ask_the_same() -> None:
    assert Suite(SMALL).description == Suite(SMALL).description
    assert Suite(SMALL).description != Suite(SMALL, seed=1).description


def test_no_question_is_shared_with_the_training_split() -> None:
    from foveal.evaluation.tasks.catalogue import make_item

    trained = {make_item("shapes", "train", i).picture().tobytes() for i in range(50)}
    assert not trained & {item.picture().tobytes() for item in Suite(SMALL).items if item.kind == "shapes"}


def test_tasks_are_filled_up_and_not_over() -> None:
    counts: dict[str, int] = {}
    for question in Suite(DEFAULT).all_questions:
        counts[question.task] = counts.get(question.task, 0) + 1
    for task, count in counts.items():
        assert count == (60 if task.startswith("caption") else 240), task


def test_the_quick_suite_asks_all_tasks_of_the_default_one() -> None:
    assert {q.task for q in Suite(QUICK).all_questions} == {q.task for q in Suite(DEFAULT).all_questions}


def test_probes_take_every_kind_ask_no_captions_and_prefer_different_tasks() -> None:
    suite = Suite(DEFAULT)
    probed = suite.probed()
    assert {item.kind for item in probed} == {item.kind for item in suite.items}
    for item in probed:
        assert not any(map(is_caption, item.questions))
        whole = next(other for other in suite.items if other.picture == item.picture)
        wanted = min(len({q.task for q in whole.asked}), DEFAULT.probed_questions)
        assert len({q.task for q in item.questions}) == wanted


def test_a_perfect_model_is_measured_as_perfect(text: Path) -> None:
    suite = Suite(SMALL, text=text)
    found = observe(SeeingModel(suite, nats_per_token=1.5), suite).evaluation
    assert all(result.accuracy == 1.0 for result in found.tasks.values())
    assert found.captions is not None
    assert found.captions.bleu4 == pytest.approx(100)
    assert found.perplexity is not None
    assert found.perplexity.value == pytest.approx(np.exp(1.5))
    assert found.perplexity.tokens == 199
    assert found.image_sensitivity is not None
    assert found.speed is not None
    assert len(found.samples) == SMALL.samples
    assert set(found.not_measured) == {"agreement", "kl"}


def test_mistakes_count_in_their_task_only() -> None:
    suite = Suite(SMALL)
    wrong = SeeingModel(suite, mistake=lambda q: "violet" if q.startswith("What digit") else None)
    tasks = observe(wrong, suite, running=False).evaluation.tasks
    assert {task for task, result in tasks.items() if result.accuracy < 1} <= {"digit"}


def test_without_a_text_the_record_says_so_and_nothing_is_invented() -> None:
    found = observe(SeeingModel(Suite(SMALL)), Suite(SMALL, missing={"perplexity": "no text here"})).evaluation
    assert found.perplexity is None
    assert found.not_measured["perplexity"] == "no text here"


def test_a_text_model_is_asked_about_text_only(text: Path) -> None:
    suite = Suite(SMALL, text=text)
    model = SeeingModel(suite, supports_images=False)
    found = observe(model, suite).evaluation
    assert not model.asked
    assert not found.tasks
    assert found.perplexity is not None
    assert "pictures" in found.not_measured["image_sensitivity"]


def test_a_model_agrees_with_itself_and_a_wrong_one_does_not() -> None:
    suite = Suite(SMALL)
    base = observe(SeeingModel(suite), suite)
    same = compare(observe(SeeingModel(suite), suite), base)
    assert same.agreement is not None
    assert same.agreement.greedy_exact == same.agreement.top1 == 1.0
    assert same.kl is not None
    assert same.kl.mean == 0.0
    assert set(same.not_measured) == {"perplexity"}
    assert all(sample.base == sample.candidate for sample in same.samples)
    other = compare(observe(SeeingModel(suite, mistake=lambda q: "violet"), suite), base)
    assert other.agreement is not None
    assert other.agreement.greedy_exact == 0.0
    assert other.kl is not None
    assert other.kl.mean > 1
    assert other.kl.positions == 2 * SMALL.divergence_questions


def test_different_suites_are_not_compared() -> None:
    one, two = Suite(SMALL), Suite(replace(SMALL, questions_per_task=2))
    with pytest.raises(ConfigurationError, match="measure both with one"):
        compare(observe(SeeingModel(one), one), observe(SeeingModel(two), two))


def test_summaries_are_read_and_short_ones_left_out(tmp_path: Path) -> None:
    path = tmp_path / "summaries.json"
    path.write_text(json.dumps({"a": {"extract": "x" * 400}, "b": {"extract": "short"}, "c": {"extract": "y" * 300}}))
    assert read_text(path) == "x" * 400 + "\n\n" + "y" * 300


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"  \n"])
def test_a_file_without_text_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "no.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"no\.txt"):
        read_text(path)
