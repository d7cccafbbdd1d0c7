"""The report: one HTML file that needs nothing else, neither network nor scripts.

Every text is escaped by the template; a content security policy forbids scripts and anything from outside, so that an
answer that is HTML stays text even if an escape were forgotten.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from foveal.artifacts.passport_rows import (
    Rows,
    component_rows,
    file_rows,
    identity_rows,
    layer_rows,
    size_text,
    worst_layers,
)
from foveal.artifacts.storage import explain_storage_errors
from foveal.evaluation.evaluation_result import Evaluation
from foveal.evaluation.figure_rows import figure_rows
from foveal.evaluation.report.content import Candidate, ReportContent, mean_accuracy
from foveal.evaluation.report.front_plot import FrontPoint, Standing, draw_front
from foveal.evaluation.report.sample_cards import sample_cards
from foveal.evaluation.report.sqnr_plot import draw_sqnr
from foveal.evaluation.report.task_plot import draw_tasks

__all__ = ["render_report", "write_report"]


def write_report(path: Path, content: ReportContent) -> Path:
    """Raises StorageError."""
    page = render_report(content)
    with explain_storage_errors(path):
        path.write_text(page, encoding="utf-8")
    return path


def render_report(content: ReportContent) -> str:
    """The page as text; the same content gives the same text."""
    candidate, base = content.candidate, content.base
    passport = candidate.passport
    return _template().render(
        style=Markup(_resource("style.css")),
        name=candidate.name,
        standing=_standing(candidate),
        base=base,
        candidate=candidate,
        verdict=candidate.verdict,
        figures=_key_figures(base, candidate.evaluation),
        fronts=_fronts(content),
        comparison=_comparison(content),
        tasks=draw_tasks(base, candidate.evaluation),
        measures=figure_rows(base, candidate.evaluation),
        not_measured=sorted(candidate.evaluation.not_measured.items()),
        samples=sample_cards(candidate.evaluation.samples),
        passport=passport,
        **({} if passport is None else _passport_parts(candidate)),
    )


def _passport_parts(candidate: Candidate) -> dict[str, Any]:
    passport = candidate.passport
    assert passport is not None
    return {
        "sqnr": draw_sqnr(passport.linears),
        "components": component_rows(passport),
        "worst": layer_rows(worst_layers(passport)),
        "layers": layer_rows(passport.linears),
        "identity": identity_rows(passport),
        "recipe": json.dumps(passport.recipe, indent=2, sort_keys=True, ensure_ascii=False),
        "files": file_rows(passport),
    }


def _standing(candidate: Candidate) -> Standing:
    if candidate.verdict is None:
        return "not judged"
    return "accepted" if candidate.verdict.accepted else "rejected"


def _key_figures(base: Evaluation, candidate: Evaluation) -> list[tuple[str, str]]:
    """The handful of numbers that a reader wants first, as (value, what it is)."""
    figures = []
    if candidate.size_bytes and base.size_bytes:
        share = 100 * candidate.size_bytes / base.size_bytes
        figures.append((f"{share:.0f} %", f"of the base's size: {size_text(candidate.size_bytes)}"))
    before, after = mean_accuracy(base), mean_accuracy(candidate)
    if before is not None and after is not None:
        change = 100 * (after.estimate - before.estimate)
        figures.append((f"{100 * after.estimate:.1f} %", f"mean accuracy ({change:+.1f} points)"))
    if base.perplexity and candidate.perplexity and base.perplexity.value and candidate.perplexity.value:
        rise = 100 * (candidate.perplexity.value / base.perplexity.value - 1)
        figures.append((f"{candidate.perplexity.value:.2f}", f"perplexity ({rise:+.1f} %)"))
    if base.image_sensitivity and candidate.image_sensitivity and base.image_sensitivity.swap.answers:
        kept = 100 * candidate.image_sensitivity.swap.answers / base.image_sensitivity.swap.answers
        figures.append((f"{kept:.0f} %", "of the base's image sensitivity"))
    if candidate.agreement is not None:
        figures.append((f"{100 * candidate.agreement.greedy_exact:.0f} %", "answers equal to the base's"))
    if base.speed and candidate.speed and base.speed.decode_tok_s:
        ratio = candidate.speed.decode_tok_s / base.speed.decode_tok_s
        figures.append((f"{ratio:.2f}x", f"decode speed: {candidate.speed.decode_tok_s:.0f} tok/s"))
    return figures


def _fronts(content: ReportContent) -> list[Markup]:
    accuracies, perplexities = [], []
    shown = [(content.base, "base", False)]
    shown += [(c.evaluation, _standing(c), c is content.candidate) for c in content.candidates]
    for evaluation, standing, subject in shown:
        if not evaluation.size_bytes:
            continue
        place: dict[str, Any] = {"name": evaluation.model.name, "size_bytes": evaluation.size_bytes}
        place |= {"standing": standing, "subject": subject}
        accuracy = mean_accuracy(evaluation)
        if accuracy is not None:
            low, high = 100 * accuracy.low, 100 * accuracy.high
            accuracies.append(FrontPoint(quality=100 * accuracy.estimate, low=low, high=high, **place))
        if evaluation.perplexity is not None and evaluation.perplexity.value is not None:
            perplexities.append(FrontPoint(quality=evaluation.perplexity.value, **place))
    plots = []
    if len(accuracies) > 1:
        plots.append(draw_front(accuracies, title="Mean accuracy of the tasks", unit="%", higher_is_better=True))
    if len(perplexities) > 1:
        plots.append(draw_front(perplexities, title="Perplexity", unit="per token", higher_is_better=False))
    return plots


def _comparison(content: ReportContent) -> Rows:
    rows = []
    shown = [(content.base, "base"), *((c.evaluation, _standing(c)) for c in content.candidates)]
    for evaluation, standing in shown:
        accuracy, sight = mean_accuracy(evaluation), evaluation.image_sensitivity
        perplexity = evaluation.perplexity
        rows.append(
            (
                evaluation.model.name,
                standing,
                size_text(evaluation.size_bytes) if evaluation.size_bytes else "-",
                f"{perplexity.value:.2f}" if perplexity and perplexity.value is not None else "-",
                f"{100 * accuracy.estimate:.1f} %" if accuracy else "-",
                f"{evaluation.captions.bleu4:.1f}" if evaluation.captions else "-",
                f"{100 * sight.swap.answers:.0f} %" if sight else "-",
            )
        )
    columns = ("model", "verdict", ">weights", ">perplexity", ">mean accuracy", ">BLEU-4", ">answers changed by a swap")
    return Rows(columns, tuple(rows))


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_resource("page.html.jinja"))


def _resource(name: str) -> str:
    return resources.files("foveal.evaluation.report").joinpath(name).read_text(encoding="utf-8")
