"""An evaluation, alone or beside its base, as tables for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from foveal.evaluation.evaluation_result import Evaluation, PictureDependence
from foveal.evaluation.verdict import Verdict

__all__ = ["evaluation_tables", "verdict_table"]


def evaluation_tables(evaluation: Evaluation, base: Evaluation | None = None) -> RenderableType:
    """Tasks, then the other figures; a second column for the base if there is one."""
    title = Text(f"{evaluation.model.name}, {evaluation.suite.split()[0]} suite", style="table.title")
    tasks = Table(title=title, title_justify="left")
    for name in ("task", "questions", "right", *(("base",) if base else ())):
        tasks.add_column(name, justify="left" if name == "task" else "right")
    for task, result in evaluation.tasks.items():
        cells = [task, str(result.questions), f"{result.accuracy:.1%}"]
        if base is not None:
            other = base.tasks.get(task)
            cells.append(f"{other.accuracy:.1%}" if other else "-")
        tasks.add_row(*cells)
    rest = Table.grid(padding=(0, 2))
    for name, value in _figures(evaluation).items():
        cells = [name, value]
        if base is not None:
            cells.append(f"[dim]base {_figures(base).get(name, '-')}[/]")
        rest.add_row(*cells)
    for part, reason in evaluation.not_measured.items():
        rest.add_row(part, Text(f"not measured: {reason}", style="yellow"))
    return Group(tasks, rest) if evaluation.tasks else rest


def verdict_table(verdict: Verdict, *, everything: bool = False) -> RenderableType:
    """Failed checks with their reasons, all of them on demand, and the verdict."""
    shown = [finding for finding in verdict.findings if everything or not finding.passed]
    parts: list[RenderableType] = []
    if shown:
        table = Table(title=f"Gate ({verdict.profile} limits)", title_justify="left")
        for name in ("", "check", "found", "allowed", "why"):
            table.add_column(name, overflow="fold")
        for finding in shown:
            mark = Text("ok", style="green") if finding.passed else Text("FAILS", style="bold red")
            table.add_row(mark, Text(finding.check), Text(finding.found), Text(finding.limit), Text(finding.reason))
        parts.append(table)
    count = len(verdict.findings)
    if verdict.accepted:
        parts.append(Text(f"accepted: all {count} checks pass", style="bold green"))
    else:
        failed = sum(not finding.passed for finding in verdict.findings)
        parts.append(Text(f"rejected: {failed} of {count} checks fail", style="bold red"))
    return Group(*parts)


def _figures(evaluation: Evaluation) -> dict[str, str]:
    found: dict[str, str] = {}
    if (text := evaluation.perplexity) is not None and text.value is not None:
        found["perplexity"] = f"{text.value:.3f} over {text.tokens:,} tokens"
    if evaluation.captions is not None:
        found["captions BLEU-4"] = f"{evaluation.captions.bleu4:.1f} over {evaluation.captions.items}"
    if (agreement := evaluation.agreement) is not None:
        found["agrees with base"] = f"{agreement.greedy_exact:.1%} of answers, {agreement.top1:.1%} of top-1 tokens"
    if (kl := evaluation.kl) is not None and kl.mean is not None:
        found["KL from base"] = f"{kl.mean:.5f} nats per token over {kl.positions} positions"
    if (sight := evaluation.image_sensitivity) is not None:
        for name in ("swap", "blank", "shuffled"):
            found[f"picture {name}"] = _dependence(getattr(sight, name))
    if evaluation.run_as:
        found["run as"] = evaluation.run_as
    if evaluation.size_bytes is not None:
        found["size on disk"] = f"{evaluation.size_bytes / 1e6:,.1f} MB"
    if evaluation.peak_memory_bytes is not None:
        found["peak memory"] = f"{evaluation.peak_memory_bytes / 1e6:,.0f} MB"
    if (speed := evaluation.speed) is not None:
        found["speed, batch 1"] = (
            f"encode {speed.encode_ms:.0f} ms, prefill {speed.prefill_tok_s:.0f} tok/s, decode {speed.decode_tok_s:.1f} tok/s"
        )
    return found


def _dependence(dependence: PictureDependence) -> str:
    kl = "-" if dependence.kl is None else f"{dependence.kl:.2f}"
    accuracy = "" if dependence.accuracy is None else f", {dependence.accuracy:.0%} still right"
    return f"{dependence.answers:.0%} of answers change, KL {kl} nats{accuracy}"
