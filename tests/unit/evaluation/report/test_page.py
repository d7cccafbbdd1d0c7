"""The report is one file, says the verdict first, and lets nothing in that is not text."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from foveal.core.errors import StorageError
from foveal.evaluation.evaluation_result import Evaluation, MeasuredModel, SampleAnswer, TaskResult
from foveal.evaluation.report.content import Candidate, ReportContent
from foveal.evaluation.report.page import render_report, write_report
from foveal.evaluation.report.sample_cards import sample_cards
from unit.evaluation.report.sample_report import HOSTILE, make_content, make_samples

CONTENT = make_content()
PAGE = render_report(CONTENT)


class _Elements(HTMLParser):
    """Tags, and the values of attributes that could load something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.handlers: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.sources += [
            value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data", "srcset")
        ]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_opens_offline_and_runs_nothing() -> None:
    elements = _Elements(PAGE)
    assert elements.open == []
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(elements.tags)
    assert elements.handlers == []
    assert elements.sources
    assert all(source.startswith("data:image/png;base64,") for source in elements.sources)
    assert "url(" not in PAGE
    assert "@import" not in PAGE
    assert "default-src 'none'" in PAGE


def test_a_hostile_answer_is_text() -> None:
    assert HOSTILE not in PAGE
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in PAGE


@pytest.mark.parametrize("field", ["model", "suite", "machine", "task", "linear", "reason", "recipe", "tool", "why"])
def test_no_text_from_outside_becomes_markup(field: str) -> None:
    evaluation, passport, verdict = CONTENT.candidate.evaluation, CONTENT.candidate.passport, CONTENT.candidate.verdict
    assert passport is not None
    assert verdict is not None
    base = CONTENT.base
    if field == "model":
        evaluation = replace(evaluation, model=MeasuredModel(name=HOSTILE, digest="d"))
    elif field == "suite":
        evaluation = replace(evaluation, suite=HOSTILE)
    elif field == "machine":
        base = replace(base, machine=HOSTILE)
    elif field == "task":
        evaluation = replace(evaluation, tasks={HOSTILE: TaskResult(per_item=(True,))})
    elif field == "linear":
        passport = replace(passport, linears={HOSTILE: next(iter(passport.linears.values()))})
    elif field == "reason":
        finding = replace(verdict.findings[0], passed=False, reason=HOSTILE, check=HOSTILE)
        verdict = replace(verdict, findings=(finding,))
    elif field == "recipe":
        passport = replace(passport, recipe={HOSTILE: HOSTILE})
    elif field == "tool":
        passport = replace(passport, tools={HOSTILE: HOSTILE})
    else:
        evaluation = replace(evaluation, not_measured={"x": HOSTILE})
    page = render_report(
        ReportContent(base=base, candidate=Candidate(evaluation=evaluation, passport=passport, verdict=verdict))
    )
    assert "alert(1)" in page
    elements = _Elements(page)
    assert "script" not in elements.tags
    assert elements.handlers == []
    assert all(source.startswith("data:image/png") for source in elements.sources)


@pytest.mark.parametrize("picture", ["https://evil.example/x.png", "not base64!", "PHN2Zz48L3N2Zz4=", '"><script>'])
def test_only_a_png_becomes_a_picture(picture: str) -> None:
    sample = SampleAnswer(task="t", question="q", reference="r", candidate="c", image_png_base64=picture)
    [card] = sample_cards([sample])
    assert card.picture == ""
    assert card.damaged


def test_the_verdict_stands_first_with_every_reason() -> None:
    content = make_content(rejected=True)
    verdict = content.candidate.verdict
    assert verdict is not None
    page = render_report(content)
    top = page[: page.index("<h2>")]
    assert "Rejected by the 4-bit limits" in top
    assert len(verdict.reasons) > 3
    assert top.count("<li>") == len(verdict.reasons)
    assert "answers without looking" in top
    assert "Accepted by the 4-bit limits" in PAGE[: PAGE.index("<h2>")]


def test_every_task_candidate_layer_and_sample_is_shown() -> None:
    passport = CONTENT.candidate.passport
    assert passport is not None
    for task in CONTENT.base.tasks:
        assert task in PAGE
    for candidate in CONTENT.candidates:
        assert candidate.name in PAGE
    for name in passport.linears:
        assert name in PAGE
    assert PAGE.count('<article class="sample">') == len(CONTENT.candidate.evaluation.samples)


def test_answers_that_changed_come_first() -> None:
    cards = sample_cards(make_samples())
    changed = [card.changed for card in cards]
    assert changed == sorted(changed, reverse=True)
    assert any(changed)


def test_the_same_content_gives_the_same_page() -> None:
    assert render_report(make_content()) == PAGE


def test_no_coordinate_is_missing_or_not_a_number() -> None:
    assert not re.search(r'="(nan|inf|-inf|None)"', PAGE)


def test_a_bare_evaluation_makes_a_page_without_plots() -> None:
    bare = Evaluation(model=MeasuredModel(name="m", digest="d"), suite="s")
    page = render_report(ReportContent(base=bare, candidate=Candidate(evaluation=bare)))
    assert "No verdict was given" in page
    assert "<svg" not in page
    assert _Elements(page).open == []


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Check the path"):
        write_report(tmp_path / "none" / "report.html", CONTENT)
    assert write_report(tmp_path / "report.html", CONTENT).read_text() == PAGE
