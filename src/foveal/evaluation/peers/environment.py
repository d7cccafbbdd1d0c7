"""The engines that a folder of environments offers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foveal.core.errors import ConfigurationError

__all__ = ["Participant", "PeerEnvironment", "choose_participants", "read_environments"]

STATUS_FILE = "status.json"


@dataclass(frozen=True)
class PeerEnvironment:
    """One engine, installed or not. `benchmarks/peers/environments.py` writes the file it is read from."""

    name: str
    folder: Path
    """Converted models are kept below it."""
    python: str
    runner: str
    modes: tuple[str, ...]
    """Precisions it can be run in, as its runner names them."""
    versions: dict[str, str]
    error: str | None = None
    """Why it is not usable; its modes then become rows that say so."""


@dataclass(frozen=True, order=True)
class Participant:
    """An engine in one precision."""

    engine: str
    mode: str

    def __str__(self) -> str:
        return f"{self.engine}:{self.mode}"


def read_environments(folder: Path) -> dict[str, PeerEnvironment]:
    """By name, in the order of names. Raises ConfigurationError where there is none."""
    found = {}
    for file in sorted(folder.glob(f"*/{STATUS_FILE}")):
        try:
            environment = _parse(file)
        except (ValueError, KeyError) as error:
            raise ConfigurationError(
                f"{file} cannot be read ({error!r}). Run: python benchmarks/peers/environments.py {folder}"
            ) from None
        found[environment.name] = environment
    if not found:
        raise ConfigurationError(
            f"{folder} holds no peer environments. Make them with: python benchmarks/peers/environments.py {folder}"
        )
    return found


def _parse(file: Path) -> PeerEnvironment:
    status = json.loads(file.read_text())
    return PeerEnvironment(
        name=status["name"],
        folder=file.parent,
        python=status["python"],
        runner=status["runner"],
        modes=tuple(status["modes"]),
        versions=status["versions"],
        error=None if status["ok"] else status["error"] or "it could not be installed",
    )


def choose_participants(environments: Sequence[PeerEnvironment], wanted: Sequence[str]) -> list[Participant]:
    """`wanted` are "engine" (all its modes) or "engine:mode"; empty means everything. Raises ConfigurationError.

    Environments that are not usable are chosen too: the table shows why.
    """
    known = {environment.name: environment for environment in environments}
    everything = [Participant(e.name, mode) for e in environments for mode in e.modes]
    if not wanted:
        return everything
    chosen: list[Participant] = []
    for item in wanted:
        engine, _, mode = item.partition(":")
        if engine not in known:
            raise ConfigurationError(f"{engine!r} is no engine here; there are {', '.join(known)}")
        # A mode that is not listed is left to the runner to accept: Foveal's combine freely.
        chosen += [Participant(engine, mode)] if mode else [p for p in everything if p.engine == engine]
    return list(dict.fromkeys(chosen))
