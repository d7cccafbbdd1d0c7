"""Single values of the file: text, numbers, sizes, paths, choices, with ${NAME} taken from the environment."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml

from foveal.gateway.config.field_type import FieldType
from foveal.gateway.config.fields import SECRET, SIZE
from foveal.gateway.config.problems import suggestion

__all__ = ["ScalarError", "Scalars"]

_REFERENCE = re.compile(r"\$(?:\$|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\})")
_INTEGER = re.compile(r"[+-]?\d[\d_]*")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?", re.IGNORECASE)
_UNITS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 1 << 10,
    "mi": 1 << 20,
    "gi": 1 << 30,
    "ti": 1 << 40,
}


class ScalarError(Exception):
    """The rest of a sentence that begins with the setting's name."""


class Scalars:
    def __init__(self, environment: Mapping[str, str], directory: Path) -> None:
        self._environment = environment
        self._directory = directory

    def read(self, node: yaml.ScalarNode, kind: FieldType) -> Any:
        """None for an empty variable where the setting may be absent.

        Raises ScalarError. A secret, and whatever came from the environment, is never in its message.
        """
        text, expanded = self._expand(node.value)
        hidden = expanded or SECRET in kind.marks
        shown = (node.value if expanded else "this value") if hidden else repr(text) if kind.core is str else text
        if expanded and not text and kind.optional:
            return None
        if node.tag.endswith(":null"):
            raise ScalarError("is empty; give a value or remove the line")
        quoted = node.style in ("'", '"') and not expanded
        core = kind.core
        if core is str:
            if node.tag.endswith(":bool") and not expanded:
                raise ScalarError(f"is {shown}, which YAML reads as true or false; put it in quotes")
            return text
        if core is Path:
            return self._directory / Path(text).expanduser()
        if core is bool:
            return _boolean(text, quoted, shown)
        if core in (int, float):
            value = _size(text, shown) if SIZE in kind.marks else _number(core, text, quoted, shown)
            for limits in kind.ranges:
                if problem := limits.problem(value):
                    raise ScalarError(f"is {shown}; it {problem}")
            return value
        if get_origin(core) is Literal:
            choices = {str(choice): choice for choice in get_args(core)}
            # `off` and `on` are booleans to YAML 1.1; as a choice they are words.
            return _choice(text, choices, shown)
        if isinstance(core, type) and issubclass(core, enum.Enum):
            return _choice(text, {member.name: member for member in core}, shown)
        raise TypeError(f"a configuration field cannot be of type {core}")

    def _expand(self, text: str) -> tuple[str, bool]:
        """With ${NAME} and ${NAME:-default} replaced, `$$` made `$`; and whether any was from the environment."""
        if "$" not in text:
            return text, False
        expanded = False

        def replaced(match: re.Match[str]) -> str:
            nonlocal expanded
            name = match["name"]
            if name is None:
                return "$"
            expanded = True
            value = self._environment.get(name, match["default"])
            if value is None:
                raise ScalarError(f"the environment has no {name}; set it, or give a default: ${{{name}:-...}}")
            return value

        return _REFERENCE.sub(replaced, text), expanded


def _boolean(text: str, quoted: bool, shown: str) -> bool:
    value = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}.get(text.lower())
    if value is None or quoted:
        raise ScalarError(f"is {shown}; write true or false")
    return value


def _number(core: type, text: str, quoted: bool, shown: str) -> int | float:
    word = "a whole number" if core is int else "a number"
    if quoted:
        raise ScalarError(f"is {shown!r} in quotes; it must be {word}, without quotes")
    if core is int:
        if not _INTEGER.fullmatch(text):
            raise ScalarError(f"is {shown}; it must be {word}")
        return int(text)
    try:
        # Not by YAML's tag: YAML 1.1 takes 1e-3 for text.
        value = float(text)
    except ValueError:
        raise ScalarError(f"is {shown}; it must be {word}") from None
    if not math.isfinite(value):
        raise ScalarError(f"is {shown}; it must be finite")
    return value


def _size(text: str, shown: str) -> int:
    match = _SIZE.fullmatch(text.strip().replace("_", ""))
    if match is None:
        raise ScalarError(f"is {shown}; it must be a size such as 65536, 64KiB or 2GiB")
    return int(float(match[1]) * _UNITS[(match[2] or "").lower()])


def _choice(text: str, choices: Mapping[str, Any], shown: str) -> Any:
    if text in choices:
        return choices[text]
    raise ScalarError(f"is {shown}; it must be one of {', '.join(choices)}{_close(text, choices)}")


def _close(text: str, choices: Mapping[str, Any]) -> str:
    found = suggestion(text, choices)
    return found if "did you mean" in found else ""
