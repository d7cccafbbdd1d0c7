"""SVG by hand: elements whose texts and attributes are always escaped, and axes with round ticks.

Colours are classes, defined once in the page's style sheet, so that plots follow the reader's light or dark theme.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup, escape

__all__ = ["Axis", "drawing", "element", "nice_ticks", "text", "text_width"]

_CHARACTER = 0.56
"""Mean width of a character in units of the font size: sans-serif, mixed text."""


def element(name: str, *children: Markup | str, **attributes: object) -> Markup:
    """<name attributes>children</name>; children that are not Markup are escaped. class_ -> class, x_y -> x-y."""
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_short(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{shown}>{''.join(map(escape, children))}</{name}>")


def text(x: float, y: float, content: str, **attributes: object) -> Markup:
    return element("text", content, x=x, y=y, **attributes)


def drawing(width: float, height: float, label: str, children: Iterable[Markup]) -> Markup:
    """The <svg>; `label` is what a screen reader says."""
    title = element("title", label)
    return element(
        "svg", title, *children, viewBox=f"0 0 {width:g} {height:g}", role="img", style=f"max-width:{width:g}px"
    )


def text_width(content: str, size: float = 12) -> float:
    """About how wide a text is, pixels."""
    return _CHARACTER * size * len(content)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that cover [low, high]; the first is at most `low`, the last at least `high`."""
    if not high > low:
        low, high = low - abs(low) / 2 - 0.5, high + abs(high) / 2 + 0.5
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values to pixels; `start` is the pixel of the first tick. Pixels may fall as values rise."""

    ticks: tuple[float, ...]
    start: float
    end: float

    @classmethod
    def over(cls, values: Iterable[float], start: float, end: float, *, count: int = 5, pad: float = 0.0) -> Axis:
        """Round ticks around the values, widened by the share `pad` of their span on both sides."""
        held = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        extra = pad * (max(held) - min(held))
        return cls(tuple(nice_ticks(min(held) - extra, max(held) + extra, count)), start, end)

    def at(self, value: float) -> float:
        first, last = self.ticks[0], self.ticks[-1]
        return self.start + (value - first) / (last - first) * (self.end - self.start)

    def label(self, value: float) -> str:
        step = self.ticks[1] - self.ticks[0]
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        # Steps of 2.5, 0.25 ... need one digit more.
        if abs(round(step, digits) - step) > step / 100:
            digits += 1
        return f"{value:,.{digits}f}"


def _short(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
