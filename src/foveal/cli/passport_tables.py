"""A passport as tables for the terminal. All texts of a passport are shown as they are, never read as markup."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from foveal.artifacts.passport import LinearEntry, Passport

__all__ = ["component_table", "evaluation_table", "findings_table", "layer_table", "passport_tables", "summary_table"]

WORST = 10


def passport_tables(passport: Passport, *, all_layers: bool = False) -> RenderableType:
    """Summary, layers by component, the worst ones (or all), evaluation and verdict, one below the other."""
    quantised = {name: entry for name, entry in passport.linears.items() if entry.quantised}
    worst = sorted(quantised.items(), key=lambda item: _or_infinity(item[1].sqnr_db))[:WORST]
    parts: list[RenderableType] = [summary_table(passport)]
    if passport.linears:
        parts.append(component_table(passport))
    if all_layers:
        parts.append(layer_table("All linear layers", sorted(passport.linears.items())))
    elif worst:
        parts.append(layer_table(f"The {len(worst)} layers with the lowest SQNR", worst))
    if passport.evaluation:
        parts.append(evaluation_table(passport.evaluation))
    if passport.verdict:
        parts.append(findings_table(passport.verdict))
    return Group(*(row for part in parts for row in (part, Text(""))))


def summary_table(passport: Passport) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _summary(passport):
        table.add_row(name, value if isinstance(value, Text) else _text(value))
    return table


def component_table(passport: Passport) -> Table:
    """One row per component and scheme, or reason for keeping."""
    table = _table("Layers by component", "component", "what", ">linears", ">before", ">after", ">lowest SQNR")
    groups: dict[tuple[str, str], list[LinearEntry]] = defaultdict(list)
    for entry in passport.linears.values():
        groups[(entry.component, _treatment(entry))].append(entry)
    for (component, what), entries in sorted(groups.items()):
        lowest = min((e.sqnr_db for e in entries if e.sqnr_db is not None), default=None)
        _row(
            table,
            component,
            what,
            str(len(entries)),
            _size(sum(e.bytes_before for e in entries)),
            _size(sum(e.bytes_after for e in entries)),
            _decibel(lowest),
        )
    return table


def layer_table(title: str, entries: Sequence[tuple[str, LinearEntry]]) -> Table:
    table = _table(title, "layer", "what", ">SQNR", ">theory", ">loss / RTN's", ">bytes", "note")
    for name, entry in entries:
        relative = "" if entry.loss is None or not entry.rtn_loss else f"{entry.loss / entry.rtn_loss:.2f}"
        bytes_ = f"{_size(entry.bytes_before)} -> {_size(entry.bytes_after)}"
        _row(
            table,
            name,
            _treatment(entry),
            _decibel(entry.sqnr_db),
            _decibel(entry.theory_sqnr_db),
            relative,
            bytes_,
            entry.note or "",
        )
    return table


def evaluation_table(evaluation: dict[str, Any]) -> Table:
    """The figures of an evaluation (`Evaluation.for_passport`); parts that are not there are left out."""
    table = _table("Evaluation", "figure", ">value", "of")
    for row in _figures(evaluation):
        _row(table, *row)
    return table


def findings_table(verdict: dict[str, Any]) -> Table:
    accepted = verdict.get("accepted") is True
    table = _table(f"Verdict: {'accepted' if accepted else 'rejected'}", "", "check", "found", "limit", "reason")
    for finding in verdict.get("findings") or ():
        mark = Text("pass", style="green") if finding.get("passed") else Text("FAIL", style="bold red")
        cells = [_text(str(finding.get(key, ""))) for key in ("check", "found", "limit", "reason")]
        table.add_row(mark, *cells)
    return table


def _summary(passport: Passport) -> Iterator[tuple[str, str | Text]]:
    yield "passport", passport.digest
    yield "made from", f"{passport.source.name} ({passport.source.digest})"
    yield "kind", passport.kind
    recipe = (
        passport.recipe.get("name") or passport.recipe.get("preset") or ", ".join(map(str, passport.recipe)) or "none"
    )
    yield "recipe", str(recipe)
    if passport.calibration is None:
        yield "calibration", "none"
    else:
        calibration = passport.calibration
        yield "calibration", f"{calibration.samples} samples of {calibration.kind} ({calibration.digest})"
        if calibration.unfit:
            yield "", _text(f"unfit: {'; '.join(calibration.unfit)}", "red")
    total = len(passport.linears)
    yield "layers", f"{passport.quantised_linears} of {total} linears quantised"
    sizes = passport.sizes
    yield "weights", f"{_size(sizes.source_bytes)} -> {_size(sizes.bytes)} ({100 * sizes.ratio:.1f} %)"
    yield "tools", ", ".join(f"{name} {version}" for name, version in sorted(passport.tools.items()))
    yield "verdict", _verdict_line(passport)


def _verdict_line(passport: Passport) -> Text:
    verdict = passport.verdict
    if verdict is None:
        return Text("not judged", style="yellow")
    if verdict.get("passport_digest") != passport.digest:
        return Text("about another passport: does not count", style="bold red")
    return Text("accepted", style="green") if verdict.get("accepted") is True else Text("rejected", style="bold red")


def _figures(evaluation: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    if perplexity := evaluation.get("perplexity"):
        yield "perplexity", _number(perplexity.get("value"), "{:.3f}"), f"{perplexity.get('tokens', 0):,} tokens"
    for task, result in sorted((evaluation.get("tasks") or {}).items()):
        items = result.get("per_item") or ()
        yield task, f"{100 * sum(items) / len(items):.1f} %" if items else "-", f"{len(items)} questions"
    if captions := evaluation.get("captions"):
        yield "captions BLEU-4", _number(captions.get("bleu4"), "{:.1f}"), f"{captions.get('items')} captions"
    if agreement := evaluation.get("agreement"):
        yield (
            "greedy answers equal to the base's",
            _share(agreement.get("greedy_exact")),
            f"{agreement.get('items')} answers",
        )
        yield "most likely token equal", _share(agreement.get("top1")), ""
    if kl := evaluation.get("kl"):
        yield "KL from the base", _number(kl.get("mean"), "{:.4f} nats"), f"{kl.get('positions', 0):,} positions"
    if sight := evaluation.get("image_sensitivity"):
        for probe in ("swap", "blank", "shuffled"):
            changed = (sight.get(probe) or {}).get("answers")
            yield f"answers that change: picture {probe}", _share(changed), f"{sight.get('items')} questions"
    if peak := evaluation.get("peak_memory_bytes"):
        yield "peak memory", _size(peak), ""
    if speed := evaluation.get("speed"):
        yield "encode", _number(speed.get("encode_ms"), "{:.1f} ms"), "one picture"
        yield "prefill", _number(speed.get("prefill_tok_s"), "{:.0f} tok/s"), ""
        yield "decode", _number(speed.get("decode_tok_s"), "{:.1f} tok/s"), ""


def _treatment(entry: LinearEntry) -> str:
    if entry.scheme is None:
        return f"kept: {entry.kept_reason}"
    return f"{entry.scheme} ({entry.method})" if entry.method else entry.scheme


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim")
    for column in columns:
        table.add_column(
            column.removeprefix(">"), justify="right" if column.startswith(">") else "left", overflow="fold"
        )
    return table


def _row(table: Table, *cells: str) -> None:
    table.add_row(*map(_text, cells))


def _text(value: str, style: str = "") -> Text:
    """Without control characters: a passport must not drive the terminal."""
    return Text("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in value), style=style)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def _decibel(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} dB"


def _number(value: Any, form: str) -> str:
    return form.format(value) if isinstance(value, int | float) else "not finite"


def _share(value: Any) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, int | float) else "-"


def _or_infinity(value: float | None) -> float:
    return float("inf") if value is None else value
