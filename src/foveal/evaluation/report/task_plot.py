"""Accuracy per task, base above candidate, with intervals; beside it the change with its paired interval."""

from __future__ import annotations

from markupsafe import Markup

from foveal.evaluation.checks.loss_rule import accuracy_loss
from foveal.evaluation.evaluation_result import Evaluation, TaskResult
from foveal.evaluation.metrics.wilson import wilson_interval
from foveal.evaluation.report.svg import Axis, drawing, element, text, text_width

__all__ = ["draw_tasks"]

WIDTH, ROW, BAR = 940.0, 44.0, 13.0
TOP, BOTTOM, CHANGE = 52.0, 26.0, 190.0
LONGEST_NAME = 30


def draw_tasks(base: Evaluation, candidate: Evaluation) -> Markup | None:
    """None if neither answered anything. A task of only one of them has one bar."""
    names = sorted(task for task in {*base.tasks, *candidate.tasks} if _questions(base, candidate, task))
    if not names:
        return None
    left = 16 + max(text_width(_cut(name), 13) for name in names)
    right = WIDTH - CHANGE
    x = Axis((0.0, 25.0, 50.0, 75.0, 100.0), left, right)
    height = TOP + ROW * len(names) + BOTTOM
    parts = [text(8, 14, "Accuracy per task (%, with 95 % intervals)", class_="plot-title"), *_legend(left)]
    parts.append(text(right + 14, TOP - 10, "change, points (95 %, paired)", class_="tick"))
    for tick in x.ticks:
        parts.append(element("line", x1=x.at(tick), x2=x.at(tick), y1=TOP - 4, y2=height - BOTTOM, class_="grid"))
        parts.append(text(x.at(tick), height - 8, x.label(tick), class_="tick", text_anchor="middle"))
    for number, name in enumerate(names):
        top = TOP + ROW * number
        before, after = base.tasks.get(name), candidate.tasks.get(name)
        parts.append(text(8, top + ROW / 2 + 2, _cut(name), class_="task"))
        parts += _bar(before, x, top + 6, "bar base", f"{name}, base")
        parts += _bar(after, x, top + 7 + BAR, "bar candidate", f"{name}, candidate")
        parts.append(text(right + 14, top + ROW / 2 + 2, _change(before, after), class_="change"))
    return drawing(WIDTH, height, "Accuracy per task", parts)


def _bar(result: TaskResult | None, x: Axis, top: float, kind: str, label: str) -> list[Markup]:
    if result is None or not result.questions:
        return []
    interval = wilson_interval(result.correct, result.questions)
    left, end, middle = x.at(0), x.at(100 * result.accuracy), top + BAR / 2
    shown = f"{label}: {100 * result.accuracy:.1f} % of {result.questions}"
    parts = [
        element("title", shown),
        element("rect", x=left, y=top, width=max(end - left, 0.5), height=BAR - 1, rx=2.0, class_=kind),
        element(
            "line",
            x1=x.at(100 * interval.low),
            x2=x.at(100 * interval.high),
            y1=middle,
            y2=middle,
            class_="whisker plain",
        ),
    ]
    return [element("g", *parts)]


def _change(before: TaskResult | None, after: TaskResult | None) -> str:
    if before is None or after is None:
        return "only one was asked"
    if before.questions != after.questions or before.items_digest != after.items_digest:
        return "other questions"
    loss = accuracy_loss(before.per_item, after.per_item, confidence=0.95, resamples=4000)
    return f"{_signed(-loss.estimate)}  ({_signed(-loss.high)} to {_signed(-loss.low)})"


def _signed(value: float) -> str:
    return "0.0" if abs(value) < 0.05 else f"{value:+.1f}".replace("-", "−")


def _legend(left: float) -> list[Markup]:
    parts = []
    for name, kind in (("base", "bar base"), ("candidate", "bar candidate")):
        parts.append(element("rect", x=left, y=TOP - 20, width=12.0, height=10.0, rx=2.0, class_=kind))
        parts.append(text(left + 17, TOP - 11, name, class_="tick"))
        left += 17 + text_width(name) + 20
    return parts


def _questions(base: Evaluation, candidate: Evaluation, task: str) -> int:
    return sum(e.tasks[task].questions for e in (base, candidate) if task in e.tasks)


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
