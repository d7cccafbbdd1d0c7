"""Size against quality: which candidates are worth their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from foveal.evaluation.report.svg import Axis, drawing, element, text, text_width

__all__ = ["FrontPoint", "draw_front", "front"]

WIDTH, HEIGHT = 460.0, 320.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 16.0, 30.0, 44.0
Standing = Literal["base", "accepted", "rejected", "not judged"]


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """`quality` in the plot's unit, with an interval if one is known."""

    name: str
    size_bytes: float
    quality: float
    low: float | None = None
    high: float | None = None
    standing: Standing = "not judged"
    subject: bool = False
    """The one that the report is about."""


def front(points: Sequence[FrontPoint], *, higher_is_better: bool) -> list[FrontPoint]:
    """Points that no other beats in size and quality at once, by rising size."""
    best: list[FrontPoint] = []
    sign = 1 if higher_is_better else -1
    for point in sorted(points, key=lambda p: (p.size_bytes, -sign * p.quality)):
        if not best or sign * point.quality > sign * best[-1].quality:
            best.append(point)
    return best


def draw_front(points: Sequence[FrontPoint], *, title: str, unit: str, higher_is_better: bool) -> Markup:
    """Dots with their names and intervals; the front as a stepped line. MB on the x axis, from zero."""
    x = Axis.over([0.0, *(p.size_bytes / 1e6 for p in points)], LEFT, WIDTH - RIGHT, count=4)
    spread = [value for p in points for value in (p.quality, p.low, p.high) if value is not None]
    y = Axis.over(spread, HEIGHT - BOTTOM, TOP, pad=0.08)
    better = "higher is better" if higher_is_better else "lower is better"
    parts = [text(LEFT - 44, 14, f"{title} ({unit}, {better})", class_="plot-title")]
    for tick in y.ticks:
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y.at(tick), y2=y.at(tick), class_="grid"))
        parts.append(text(LEFT - 8, y.at(tick) + 4, y.label(tick), class_="tick", text_anchor="end"))
    below = HEIGHT - BOTTOM + 18
    parts += [text(x.at(tick), below, x.label(tick), class_="tick", text_anchor="middle") for tick in x.ticks]
    parts.append(
        text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "weights on disk, MB", class_="tick", text_anchor="middle")
    )
    parts.append(_front_line(front(points, higher_is_better=higher_is_better), x, y))
    placed = [(x.at(p.size_bytes / 1e6) - 6, y.at(p.quality) - 6, 12.0, 12.0) for p in points]
    for point in sorted(points, key=lambda p: not p.subject):
        parts.append(_dot(point, x, y))
        parts.append(_label(point, x, y, placed))
    return drawing(WIDTH, HEIGHT, f"{title} against size", parts)


def _front_line(points: Sequence[FrontPoint], x: Axis, y: Axis) -> Markup:
    corners = []
    for before, point in zip([None, *points], points, strict=False):
        if before is not None:
            corners.append(f"{x.at(point.size_bytes / 1e6):.1f},{y.at(before.quality):.1f}")
        corners.append(f"{x.at(point.size_bytes / 1e6):.1f},{y.at(point.quality):.1f}")
    return element("polyline", points=" ".join(corners), class_="front")


def _dot(point: FrontPoint, x: Axis, y: Axis) -> Markup:
    at, up = x.at(point.size_bytes / 1e6), y.at(point.quality)
    parts = [
        element("title", f"{point.name}: {point.size_bytes / 1e6:,.1f} MB, {point.quality:.2f} ({point.standing})")
    ]
    kind = point.standing.replace(" ", "-")
    if point.low is not None and point.high is not None:
        parts.append(element("line", x1=at, x2=at, y1=y.at(point.low), y2=y.at(point.high), class_=f"whisker {kind}"))
    parts.append(element("circle", cx=at, cy=up, r=7.0 if point.subject else 4.5, class_=f"dot {kind}"))
    return element("g", *parts)


def _label(point: FrontPoint, x: Axis, y: Axis, placed: list[tuple[float, float, float, float]]) -> Markup:
    """The name beside its dot, where it covers neither another name nor a dot."""
    name = point.name if len(point.name) <= 26 else point.name[:25] + "…"
    width = text_width(name, 11.5)
    at, up = x.at(point.size_bytes / 1e6), y.at(point.quality)
    spots = [(at + 10, up + 4), (at - 10 - width, up + 4)]
    spots += [(at + side, up + down) for down in (-11, 19, -24, 32) for side in (4, -width / 2, -4 - width)]
    inside = [s for s in spots if s[0] >= LEFT and s[0] + width <= WIDTH - 2 and TOP - 6 < s[1] < HEIGHT - BOTTOM - 2]
    free = [s for s in inside if not any(_overlap((s[0], s[1] - 11, width, 13), box) for box in placed)]
    left, baseline = (free or inside or spots)[0]
    placed.append((left, baseline - 11, width, 13))
    return text(left, baseline, name, class_="name subject" if point.subject else "name")


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]
