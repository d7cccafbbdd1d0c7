"""Signal-to-noise ratio of every quantised layer, in the order of the model: what is coarse, and where."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from foveal.artifacts.passport import LinearEntry
from foveal.evaluation.report.svg import Axis, drawing, element, text, text_width

__all__ = ["COMPONENTS", "draw_sqnr"]

WIDTH, HEIGHT = 940.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 16.0, 44.0, 34.0
COMPONENTS = ("vision", "projector", "embedding", "attention", "ffn", "head")
"""In the order of their colours, `c0` ... in the style sheet; others share the last one."""


def draw_sqnr(linears: Mapping[str, LinearEntry]) -> Markup | None:
    """One dot per layer with a known SQNR, a bar where theory puts it; None if no layer has one."""
    known = [(name, entry, entry.sqnr_db) for name, entry in linears.items() if entry.quantised]
    dots = [(index, name, entry, value) for index, (name, entry, value) in enumerate(known) if value is not None]
    if not dots:
        return None
    theory = [entry.theory_sqnr_db for _, _, entry, _ in dots if entry.theory_sqnr_db is not None]
    y = Axis.over([value for *_, value in dots] + theory, HEIGHT - BOTTOM, TOP, pad=0.05)
    slot = (WIDTH - LEFT - RIGHT) / len(known)
    parts = [text(LEFT - 44, 14, "SQNR of each quantised layer (dB, higher is finer)", class_="plot-title")]
    for tick in y.ticks:
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y.at(tick), y2=y.at(tick), class_="grid"))
        parts.append(text(LEFT - 8, y.at(tick) + 4, y.label(tick), class_="tick", text_anchor="end"))
    reach = max(1.5, min(slot * 0.45, 8.0))
    for index, name, entry, value in dots:
        at = LEFT + (index + 0.5) * slot
        shown = f"{name}: {value:.1f} dB, {entry.scheme}"
        marks = []
        if entry.theory_sqnr_db is not None:
            shown += f", theory {entry.theory_sqnr_db:.1f} dB"
            up = y.at(entry.theory_sqnr_db)
            marks.append(element("line", x1=at - reach, x2=at + reach, y1=up, y2=up, class_="theory"))
        radius = max(2.2, min(slot * 0.38, 5.0))
        marks.append(element("circle", cx=at, cy=y.at(value), r=radius, class_=_colour(entry.component)))
        parts.append(element("g", element("title", shown), *marks))
    parts += _legend([entry.component for _, _, entry, _ in dots], bool(theory))
    parts.append(
        text(
            (LEFT + WIDTH - RIGHT) / 2,
            HEIGHT - 8,
            f"{len(known)} layers, first to last",
            class_="tick",
            text_anchor="middle",
        )
    )
    return drawing(WIDTH, HEIGHT, "SQNR of each quantised layer", parts)


def _legend(components: list[str], theory: bool) -> list[Markup]:
    order = {name: index for index, name in enumerate(COMPONENTS)}
    parts, left = [], LEFT
    for component in sorted(set(components), key=lambda name: (order.get(name, len(order)), name)):
        parts.append(element("circle", cx=left + 4, cy=30.0, r=4.0, class_=_colour(component)))
        parts.append(text(left + 13, 34, component, class_="tick"))
        left += 13 + text_width(component) + 18
    if theory:
        parts.append(element("line", x1=left, x2=left + 12, y1=30.0, y2=30.0, class_="theory"))
        parts.append(text(left + 18, 34, "theory for this number format", class_="tick"))
    return parts


def _colour(component: str) -> str:
    return f"c{COMPONENTS.index(component)}" if component in COMPONENTS else f"c{len(COMPONENTS)}"
