"""The recipes that come with Foveal: YAML files in `presets/`, one per name."""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path

from foveal.compression.recipe import Recipe
from foveal.compression.recipe_reader import read_recipe
from foveal.core.errors import ConfigurationError

__all__ = ["AUTO", "load_recipe", "preset_names"]

AUTO = "auto"
"""Not a file: chosen from what is needed, see `foveal.compression.auto`."""

_DIRECTORY = Path(__file__).parent / "presets"


@cache
def preset_names() -> tuple[str, ...]:
    """Sorted, without `auto`."""
    return tuple(sorted(path.stem for path in _DIRECTORY.glob("*.yaml")))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A preset by name, or a recipe file by path. Raises ConfigurationError, for a typo with the nearest name."""
    wanted = str(name_or_path)
    if wanted in preset_names():
        return read_recipe(_DIRECTORY / f"{wanted}.yaml")
    if wanted == AUTO:
        raise ConfigurationError(
            f"recipe auto is chosen by measuring a model and is no file. Name a preset: {', '.join(preset_names())}."
        )
    path = Path(wanted).expanduser()
    if path.is_file():
        return read_recipe(path)
    close = difflib.get_close_matches(wanted, [*preset_names(), AUTO], 1, 0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ConfigurationError(
        f"{wanted!r} is neither a preset nor a file. Presets: {', '.join([*preset_names(), AUTO])}.{hint}"
    )
