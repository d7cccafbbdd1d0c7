"""A passport as tables for the terminal. All texts of a passport are shown as they are, never read as markup."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from foveal.artifacts.passport import Passport
from foveal.artifacts.passport_rows import Rows, component_rows, identity_rows, layer_rows, worst_layers
from foveal.core.errors import ConfigurationError
from foveal.evaluation.evaluation_result import Evaluation
from foveal.evaluation.figure_rows import figure_rows
from foveal.evaluation.verdict import Verdict

__all__ = ["passport_tables"]


def passport_tables(passport: Passport, *, all_layers: bool = False) -> RenderableType:
    """Summary, layers by component, the worst ones (or all), evaluation and verdict, one below the other."""
    parts: list[RenderableType] = [_summary(passport)]
    if passport.linears:
        parts.append(_table("Layers by component", component_rows(passport)))
    worst = worst_layers(passport)
    if all_layers:
        parts.append(_table("All linear layers", layer_rows(passport.linears)))
    elif worst:
        parts.append(_table("Layers with the lowest SQNR", layer_rows(worst)))
    if passport.evaluation is not None:
        parts.append(_evaluation(passport.evaluation))
    if passport.verdict is not None:
        parts.append(_findings(passport.verdict))
    return Group(*(row for part in parts for row in (part, Text(""))))


def _summary(passport: Passport) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in identity_rows(passport).rows:
        table.add_row(_text(name), _text(value))
    table.add_row("verdict", _standing(passport))
    return table


def _standing(passport: Passport) -> Text:
    verdict = passport.verdict
    if verdict is None:
        return Text("not judged", style="yellow")
    if verdict.get("passport_digest") != passport.digest:
        return Text("about another passport: does not count", style="bold red")
    return Text("accepted", style="green") if verdict.get("accepted") is True else Text("rejected", style="bold red")


def _evaluation(plain: dict[str, Any]) -> RenderableType:
    try:
        evaluation = msgspec.convert(plain, Evaluation)
    except (msgspec.ValidationError, ValueError) as error:
        return _text(f"The evaluation in this passport cannot be read: {error}", "yellow")
    return _table("Evaluation", figure_rows(evaluation))


def _findings(plain: dict[str, Any]) -> RenderableType:
    try:
        verdict = Verdict.from_passport(plain)
    except ConfigurationError as error:
        return _text(str(error), "yellow")
    table = Table(title=f"Verdict: {'accepted' if verdict.accepted else 'rejected'}", **_STYLE)
    for name in ("", "check", "found", "limit", "reason"):
        table.add_column(name, overflow="fold")
    for finding in verdict.findings:
        mark = Text("pass", style="green") if finding.passed else Text("FAIL", style="bold red")
        table.add_row(mark, *map(_text, (finding.check, finding.found, finding.limit, finding.reason)))
    return table


_STYLE: dict[str, Any] = {"title_justify": "left", "title_style": "bold", "header_style": "dim"}


def _table(title: str, rows: Rows) -> Table:
    table = Table(title=title, **_STYLE)
    for column in rows.columns:
        number = column.startswith(">")
        table.add_column(_text(column.removeprefix(">")), justify="right" if number else "left", overflow="fold")
    for row in rows.rows:
        table.add_row(*map(_text, row))
    return table


def _text(value: str, style: str = "") -> Text:
    """Without control characters: a passport must not drive the terminal."""
    return Text("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in value), style=style)
