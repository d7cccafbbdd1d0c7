"""A field's annotation, taken apart once: its core type, its marks, and whether it may be null."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

from foveal.gateway.config.fields import KEY, SHORTHAND, SIZE, Mark, Range

__all__ = ["FieldType", "RecordType", "field_type", "record_type"]


@dataclass(frozen=True, slots=True)
class FieldType:
    core: Any
    """int, str, a Literal, tuple[X, ...], Mapping[str, X], a dataclass, ..."""
    marks: frozenset[Mark]
    ranges: tuple[Range, ...]
    optional: bool

    @property
    def record(self) -> RecordType | None:
        """The fields, if it is a dataclass."""
        return record_type(self.core) if isinstance(self.core, type) and dataclasses.is_dataclass(self.core) else None


@dataclass(frozen=True, slots=True)
class RecordType:
    """A dataclass: the fields that are written in the file, and those that follow from where it stands."""

    cls: type[Any]
    fields: Mapping[str, FieldType]
    required: frozenset[str]
    key: str | None
    shorthand: str | None


def field_type(annotation: Any) -> FieldType:
    marks: set[Mark] = set()
    ranges: list[Range] = []
    optional = False
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation, *extras = get_args(annotation)
            marks |= {extra for extra in extras if isinstance(extra, Mark)}
            ranges += [extra for extra in extras if isinstance(extra, Range)]
        elif origin in (Union, types.UnionType):
            others = [arg for arg in get_args(annotation) if arg is not type(None)]
            if len(others) != 1:
                raise TypeError(f"a configuration field of type {annotation} cannot be read; use one type or None")
            optional = True
            annotation = others[0]
        else:
            return FieldType(annotation, frozenset(marks), tuple(ranges), optional)


@cache
def record_type(cls: type[Any]) -> RecordType:
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {field.name: _named(field.name, field_type(hints[field.name])) for field in dataclasses.fields(cls)}
    key = next((name for name, kind in fields.items() if KEY in kind.marks), None)
    required = {
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING and field.name != key
    }
    return RecordType(
        cls,
        {name: kind for name, kind in fields.items() if name != key},
        frozenset(required),
        key,
        next((name for name, kind in fields.items() if SHORTHAND in kind.marks), None),
    )


def _named(name: str, kind: FieldType) -> FieldType:
    """Units are in names: what counts bytes may be written as 64MiB."""
    if kind.core is int and "bytes" in name.split("_"):
        return dataclasses.replace(kind, marks=kind.marks | {SIZE})
    return kind
