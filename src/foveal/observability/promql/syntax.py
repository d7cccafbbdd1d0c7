"""The syntax tree of PromQL, as far as a lint needs it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Aggregation", "Binary", "Call", "Expression", "Literal", "Matcher", "Selector", "Subquery", "walk"]


@dataclass(frozen=True, slots=True)
class Matcher:
    label: str
    op: str
    value: str


@dataclass(frozen=True, slots=True)
class Selector:
    metric: str
    matchers: tuple[Matcher, ...] = ()
    range: str = ""
    """"5m" for a range vector, "" for an instant one."""


@dataclass(frozen=True, slots=True)
class Literal:
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    function: str
    arguments: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Aggregation:
    operator: str
    arguments: tuple[Expression, ...]
    grouping: str = ""
    """by, without, or "" for none."""
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Binary:
    operator: str
    left: Expression
    right: Expression
    labels: tuple[str, ...] = ()
    """Of on, ignoring, group_left and group_right."""


@dataclass(frozen=True, slots=True)
class Subquery:
    inner: Expression
    range: str
    step: str = ""


Expression = Selector | Literal | Call | Aggregation | Binary | Subquery


def walk(node: Expression, above: tuple[Expression, ...] = ()) -> Iterator[tuple[Expression, tuple[Expression, ...]]]:
    """(node, its ancestors from the root down), parents first."""
    yield node, above
    below: tuple[Expression, ...] = ()
    if isinstance(node, Call | Aggregation):
        below = node.arguments
    elif isinstance(node, Binary):
        below = (node.left, node.right)
    elif isinstance(node, Subquery):
        below = (node.inner,)
    for child in below:
        yield from walk(child, (*above, node))
