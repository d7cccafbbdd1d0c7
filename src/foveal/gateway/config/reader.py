"""YAML nodes -> frozen dataclasses, driven by their field types. Every problem keeps its line; all are reported at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args, get_origin

import yaml

from foveal.core.errors import ConfigurationError
from foveal.gateway.config.field_type import FieldType, RecordType, field_type
from foveal.gateway.config.problems import Place, Problems, suggestion
from foveal.gateway.config.scalars import ScalarError, Scalars

__all__ = ["INVALID", "Reader"]


_BY_NAME = re.compile(r"(?:\w+\.)?(\w+) (is .*)", re.DOTALL)
"""`queue.max_requests is 0; it must be ...`, as a dataclass says it."""


class _Invalid:
    """A value that could not be read; its problem is recorded."""


INVALID: Final = _Invalid()


class Reader:
    """`environment` fills ${NAME}; relative paths are taken from `directory`."""

    def __init__(self, problems: Problems, environment: Mapping[str, str], directory: Path) -> None:
        self._problems = problems
        self._scalars = Scalars(environment, directory)
        self._flatten = yaml.SafeLoader("").flatten_mapping

    def read(self, node: yaml.Node, kind: FieldType, place: Place) -> Any:
        """The value of `node`, or INVALID after recording why."""
        line = node.start_mark.line + 1
        self._problems.at(place, line)
        if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null") and kind.optional:
            return None
        record = kind.record
        if record is not None:
            return self._record(node, record, place)
        origin = get_origin(kind.core)
        if origin in (tuple, frozenset):
            return self._sequence(node, kind, place)
        if origin is not None and issubclass(origin if isinstance(origin, type) else object, Mapping):
            return self._mapping(node, kind, place)
        return self._scalar(node, kind, place)

    def _scalar(self, node: yaml.Node, kind: FieldType, place: Place) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            return self._wrong(place, f"is {_described(node)}; write one value")
        try:
            return self._scalars.read(node, kind)
        except ScalarError as error:
            return self._wrong(place, str(error))

    def _sequence(self, node: yaml.Node, kind: FieldType, place: Place) -> Any:
        if not isinstance(node, yaml.SequenceNode):
            return self._wrong(place, f"is {_described(node)}; write a list")
        element = field_type(get_args(kind.core)[0])
        values = [self.read(child, element, (*place, index)) for index, child in enumerate(node.value)]
        if any(value is INVALID for value in values):
            return INVALID
        return frozenset(values) if get_origin(kind.core) is frozenset else tuple(values)

    def _mapping(self, node: yaml.Node, kind: FieldType, place: Place) -> Any:
        element = field_type(get_args(kind.core)[1])
        children = self._children(node, place)
        if children is None:
            return INVALID
        values = {name: self.read(child, element, (*place, name)) for name, child in children.items()}
        return INVALID if any(value is INVALID for value in values.values()) else values

    def _record(self, node: yaml.Node, record: RecordType, place: Place) -> Any:
        values: dict[str, Any] = {}
        if record.key is not None:
            values[record.key] = str(place[-1])
        if not isinstance(node, yaml.MappingNode) and record.shorthand is not None:
            values[record.shorthand] = self.read(node, record.fields[record.shorthand], place)
        else:
            children = self._children(node, place)
            if children is None:
                return INVALID
            self._read_fields(children, record, place, values)
        missing = sorted(record.required - values.keys())
        if missing:
            self._problems.add(place, f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; add it")
        if missing or any(value is INVALID for value in values.values()):
            return INVALID
        try:
            return record.cls(**values)
        except (ConfigurationError, ValueError) as error:
            named = _BY_NAME.match(str(error))
            if named and named[1] in record.fields:
                return self._wrong((*place, named[1]), named[2])
            return self._wrong(place, str(error))

    def _read_fields(
        self, children: Mapping[str, yaml.Node], record: RecordType, place: Place, values: dict[str, Any]
    ) -> None:
        for name, child in children.items():
            below = (*place, name)
            if name in record.fields:
                values[name] = self.read(child, record.fields[name], below)
            else:
                line = child.start_mark.line + 1
                self._problems.add(below, f"there is no such setting{suggestion(name, record.fields)}", line)
                values[f"unknown {name}"] = INVALID

    def _children(self, node: yaml.Node, place: Place) -> dict[str, yaml.Node] | None:
        """Name -> node of a mapping, with merge keys (<<) applied; None after recording a problem."""
        if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null"):
            return {}
        if not isinstance(node, yaml.MappingNode):
            self._wrong(place, f"is {_described(node)}; write `name: value` lines")
            return None
        if self._has_duplicates(node, place):
            return None
        try:
            self._flatten(node)
        except yaml.constructor.ConstructorError as error:
            self._problems.add(place, f"{error.problem}", (error.problem_mark or node.start_mark).line + 1)
            return None
        return {key.value: value for key, value in node.value}

    def _has_duplicates(self, node: yaml.MappingNode, place: Place) -> bool:
        seen: dict[str, int] = {}
        wrong = False
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self._problems.add(place, "a name must be plain text", line)
                wrong = True
            elif key.value in seen and key.value != "<<":
                self._problems.add(
                    place, f"{key.value} is given twice, first in line {seen[key.value]}; keep one", line
                )
                wrong = True
            else:
                seen[key.value] = line
        return wrong

    def _wrong(self, place: Place, message: str) -> _Invalid:
        self._problems.add(place, message)
        return INVALID


def _described(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "a group of settings"
    return "empty" if node.tag.endswith(":null") else "a single value"
