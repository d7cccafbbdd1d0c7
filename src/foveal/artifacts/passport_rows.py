"""A passport as rows of text: what the terminal and the HTML report both show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from foveal.artifacts.passport import LinearEntry, Passport

__all__ = ["Rows", "component_rows", "file_rows", "identity_rows", "layer_rows", "size_text", "worst_layers"]

WORST = 10


@dataclass(frozen=True, slots=True)
class Rows:
    """A table. Columns whose name starts with ">" hold numbers and are aligned to the right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def identity_rows(passport: Passport) -> Rows:
    """Where it comes from and what it is, as (name, value)."""
    source, sizes, calibration = passport.source, passport.sizes, passport.calibration
    recipe = passport.recipe.get("name") or passport.recipe.get("preset") or "own"
    rows = [
        ("passport", passport.digest),
        ("made from", f"{source.name} ({source.digest})"),
        ("kind", passport.kind),
        ("recipe", str(recipe)),
        ("calibration", "none"),
        ("layers", f"{passport.quantised_linears} of {len(passport.linears)} linears quantised"),
        ("weights", f"{size_text(sizes.source_bytes)} -> {size_text(sizes.bytes)} ({100 * sizes.ratio:.1f} %)"),
        ("tools", ", ".join(f"{name} {version}" for name, version in sorted(passport.tools.items()))),
    ]
    if calibration is not None:
        unfit = f"; unfit: {'; '.join(calibration.unfit)}" if calibration.unfit else ""
        rows[4] = ("calibration", f"{calibration.samples} samples of {calibration.kind} ({calibration.digest}){unfit}")
    return Rows(("name", "value"), tuple(rows))


def component_rows(passport: Passport) -> Rows:
    """One row per component and scheme, or reason for keeping."""
    groups: dict[tuple[str, str], list[LinearEntry]] = defaultdict(list)
    for entry in passport.linears.values():
        groups[(entry.component, _treatment(entry))].append(entry)
    rows = tuple(
        (
            component,
            what,
            str(len(entries)),
            size_text(sum(entry.bytes_before for entry in entries)),
            size_text(sum(entry.bytes_after for entry in entries)),
            _decibel(min((entry.sqnr_db for entry in entries if entry.sqnr_db is not None), default=None)),
        )
        for (component, what), entries in sorted(groups.items())
    )
    return Rows(("component", "what", ">linears", ">before", ">after", ">lowest SQNR"), rows)


def worst_layers(passport: Passport) -> dict[str, LinearEntry]:
    """The quantised layers with the lowest SQNR, lowest first."""
    known = [(entry.sqnr_db, name) for name, entry in passport.linears.items() if entry.sqnr_db is not None]
    return {name: passport.linears[name] for _, name in sorted(known)[:WORST]}


def layer_rows(linears: Mapping[str, LinearEntry]) -> Rows:
    """One row per layer, in the order given."""
    rows = tuple(
        (
            name,
            _treatment(entry),
            _decibel(entry.sqnr_db),
            _decibel(entry.theory_sqnr_db),
            "" if entry.loss is None or not entry.rtn_loss else f"{entry.loss / entry.rtn_loss:.2f}",
            f"{size_text(entry.bytes_before)} -> {size_text(entry.bytes_after)}",
            entry.note or "",
        )
        for name, entry in linears.items()
    )
    return Rows(("layer", "what", ">SQNR", ">theory", ">loss / RTN's", ">size", "note"), rows)


def file_rows(passport: Passport) -> Rows:
    rows = tuple((name, f"{entry.bytes:,}", entry.sha256) for name, entry in sorted(passport.files.items()))
    return Rows(("file", ">bytes", "SHA-256"), rows)


def size_text(count: float) -> str:
    """Decimal units: "90.4 MB"."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def _treatment(entry: LinearEntry) -> str:
    if entry.scheme is None:
        return f"kept: {entry.kept_reason}"
    return f"{entry.scheme} ({entry.method})" if entry.method else entry.scheme


def _decibel(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} dB"
