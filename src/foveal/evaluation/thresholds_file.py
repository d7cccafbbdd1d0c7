"""Read the gate's thresholds from YAML, with every mistake named."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml

from foveal.core.errors import ConfigurationError
from foveal.evaluation.thresholds import PROFILES, Profile, Thresholds

__all__ = ["read_thresholds"]


def read_thresholds(path: Path) -> dict[Profile, Thresholds]:
    """Defaults with the changes of a YAML file. Raises ConfigurationError, naming the file and the key.

    Keys are Thresholds' fields and hold for both profiles; inside `4-bit:` or `INT8:` for that one only:

        image_sensitivity_kept: 0.95
        4-bit: {task_points: 1.0, points_by_task: {shapes/count: 3}}
    """
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path} holds a {type(document).__name__}; write one `name: value` per line")
    for_both = {key: value for key, value in document.items() if key not in PROFILES}
    result: dict[Profile, Thresholds] = {}
    for profile, defaults in PROFILES.items():
        own = document.get(profile) or {}
        if not isinstance(own, dict):
            raise ConfigurationError(f"{path}: {profile} holds a {type(own).__name__}; write `name: value` below it")
        try:
            changes = _typed(for_both) | _typed(own)
            # A new limit above the old ceiling moves the ceiling along, unless the file names one.
            for limit, ceiling in (
                ("perplexity_percent", "perplexity_ceiling_percent"),
                ("task_points", "task_ceiling_points"),
            ):
                if limit in changes and ceiling not in changes:
                    factor = getattr(defaults, ceiling) / getattr(defaults, limit)
                    changes[ceiling] = max(getattr(defaults, ceiling), changes[limit] * factor)
            result[profile] = replace(defaults, **changes)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {error}") from None
    return result


def _typed(values: Mapping[Any, Any]) -> dict[str, Any]:
    known = {f.name: f for f in fields(Thresholds)}
    typed: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
            raise ConfigurationError(f"there is no threshold {key!r}; {hint}")
        annotation = str(known[key].type)
        if key == "points_by_task":
            if not isinstance(value, dict):
                raise ConfigurationError(f"points_by_task is {value!r}; write `task: points` below it")
            typed[key] = {str(task): _number(f"{key}.{task}", points) for task, points in value.items()}
        elif annotation == "bool":
            if not isinstance(value, bool):
                raise ConfigurationError(f"{key} is {value!r}; write true or false")
            typed[key] = value
        elif annotation == "int":
            if not isinstance(value, int) or isinstance(value, bool):
                raise ConfigurationError(f"{key} is {value!r}; write a whole number")
            typed[key] = value
        elif value is None and "None" in annotation:
            typed[key] = None
        else:
            typed[key] = _number(key, value)
    return typed


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"{name} is {value!r}; write a number")
    return float(value)
