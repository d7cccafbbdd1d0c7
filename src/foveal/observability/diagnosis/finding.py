"""What a rule says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Severity", "per_cent", "seconds"]

Severity = Literal["problem", "notice"]
"""problem: users or money suffer. notice: worth knowing, nothing to repair now."""


@dataclass(frozen=True, slots=True)
class Finding:
    code: str
    """Stable, for machines: low_utilisation, tail_latency, ..."""
    severity: Severity
    title: str
    cause: str
    evidence: tuple[str, ...]
    """Figures of this window, each with its unit."""
    remedy: tuple[str, ...]
    """What to do, the best first."""


def seconds(value: float) -> str:
    """0.0123 -> 12 ms."""
    if value < 0.0995:
        return f"{1000 * value:.3g} ms"
    return f"{value:.3g} s"


def per_cent(ratio: float) -> str:
    return f"{100 * ratio:.3g} %"
