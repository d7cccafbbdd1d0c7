"""Small pieces of the live view: bars, sparklines, tables of quantiles."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from foveal.observability.diagnosis.finding import Finding
from foveal.observability.diagnosis.window import Window

__all__ = ["bar", "duration", "findings_text", "grid", "rates", "sparkline", "wide_table"]

_BLOCKS = " ▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉"


def sparkline(values: Sequence[float], width: int) -> str:
    """The last `width` values, the highest as a full block."""
    shown = list(values)[-width:]
    top = max(shown, default=0.0)
    if top <= 0:
        return "▁" * len(shown)
    return "".join(_BLOCKS[max(1, round(8 * value / top))] if value > 0 else "▁" for value in shown)


def bar(ratio: float | None, width: int = 12) -> Text:
    """A meter that turns yellow at 70 % and red at 90 %; a dash for an unknown value."""
    if ratio is None:
        return Text("-")
    clipped = min(max(ratio, 0.0), 1.0)
    eighths = round(8 * width * clipped)
    filled = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
    color = "red" if ratio >= 0.9 else "yellow" if ratio >= 0.7 else "green"
    meter = Text(filled.ljust(width, "·"), color)
    return meter.append(f" {100 * ratio:3.0f} %", "default")


def duration(seconds: float | None) -> str:
    """Three digits and a unit; a dash for None."""
    if seconds is None:
        return "-"
    if seconds < 0.001:
        return f"{1e6 * seconds:.0f} us"
    if seconds < 0.9995:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s"


def rates(window: Window, counter: str, **labels: str) -> list[float]:
    """Per second, between each two scrapes."""
    pairs = zip(window.scrapes, window.scrapes[1:], strict=False)
    return [Window(pair).rate(counter, **labels) for pair in pairs]


def wide_table(*columns: str, first_left: bool = True) -> Table:
    """Without lines; numbers to the right."""
    table = Table(box=None, expand=True, padding=(0, 1), header_style="bold cyan")
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index == 0 and first_left else "right", no_wrap=True)
    return table


def grid(rows: Sequence[tuple[str, Text | str]]) -> Table:
    """Name and value, line by line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    for name, value in rows:
        table.add_row(name, value)
    return table


def findings_text(findings: Sequence[Finding], most: int = 4) -> Text:
    """One line each; foveal diagnose has the whole."""
    if not findings:
        return Text("nothing found", "green")
    text = Text()
    for number, finding in enumerate(findings[:most]):
        color = "red" if finding.severity == "problem" else "yellow"
        text.append("\n" if number else "").append("● ", color).append(finding.title, "bold")
        text.append(f"  {finding.evidence[0]}", "dim")
    if len(findings) > most:
        text.append(f"\n  {len(findings) - most} more: foveal diagnose", "dim")
    return text
