"""Writes JSON in every notation that the standard allows: space anywhere, any character as an escape."""

from __future__ import annotations

import json
import random
from typing import Any

__all__ = ["Pairs", "write_json"]

_SHORT = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f"}


def write_json(value: Any, seed: int, escape_rate: float = 0.1) -> bytes:
    """Deterministic for a seed. A list of pairs stands for an object whose names may repeat: wrap it in `Pairs`."""
    return _Writer(random.Random(seed), escape_rate).value(value).encode()


class Pairs(list[tuple[str, Any]]):
    """An object as (name, value) pairs."""


class _Writer:
    def __init__(self, source: random.Random, escape_rate: float) -> None:
        self._random = source
        self._rate = escape_rate

    def value(self, value: Any) -> str:
        if isinstance(value, Pairs | dict):
            pairs = value if isinstance(value, Pairs) else list(value.items())
            inner = ",".join(f"{self._pad(self.string(name))}:{self._pad(self.value(item))}" for name, item in pairs)
            return "{" + (inner or self._space()) + "}"
        if isinstance(value, list):
            return "[" + (",".join(self._pad(self.value(item)) for item in value) or self._space()) + "]"
        if isinstance(value, str):
            return self.string(value)
        return json.dumps(value)

    def string(self, text: str) -> str:
        return '"' + "".join(map(self._char, text)) + '"'

    def _char(self, char: str) -> str:
        must = char in '"\\' or ord(char) < 0x20
        if not must and self._random.random() >= self._rate:
            return char
        if char in _SHORT and self._random.random() < 0.7:
            return _SHORT[char]
        code = char.encode("utf-16-be")
        units = [code[at : at + 2].hex() for at in range(0, len(code), 2)]
        return "".join("\\u" + (unit.upper() if self._random.random() < 0.5 else unit) for unit in units)

    def _pad(self, text: str) -> str:
        return f"{self._space()}{text}{self._space()}"

    def _space(self) -> str:
        return self._random.choice(("", "", "", " ", "\n", " \t\r\n"))
