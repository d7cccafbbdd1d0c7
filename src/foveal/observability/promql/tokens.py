"""PromQL as tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["PromqlError", "Token", "tokenise"]

Kind = Literal["number", "string", "duration", "name", "op", "end"]

_PATTERN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
    |(?P<duration>(?:[0-9]+(?:ms|[smhdwy]))+)
    |(?P<number>0x[0-9a-fA-F]+|[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)
    |(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)
    |(?P<name>[a-zA-Z_$][a-zA-Z0-9_:$]*)
    |(?P<op>=~|!~|!=|==|<=|>=|[-+*/%^<>=(){}\[\],:@])""",
    re.VERBOSE,
)


class PromqlError(ValueError):
    """A query that cannot be read, or that contradicts the catalogue."""


@dataclass(frozen=True, slots=True)
class Token:
    kind: Kind
    text: str
    at: int
    """Offset in the query."""


def tokenise(query: str) -> list[Token]:
    """Raises PromqlError naming the place. Grafana's variables ($model, $__rate_interval) are names."""
    tokens: list[Token] = []
    at = 0
    while at < len(query):
        match = _PATTERN.match(query, at)
        if match is None:
            raise PromqlError(f"cannot read {query[at : at + 20]!r} at {at} of {query!r}")
        kind = match.lastgroup
        if kind != "space":
            tokens.append(Token(kind, match.group(), at))  # type: ignore[arg-type]
        at = match.end()
    return [*tokens, Token("end", "", at)]
