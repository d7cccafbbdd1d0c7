"""The JSON schema of the configuration file, for editors: from the same declarations that read it."""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import textwrap
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from foveal.gateway.config.field_type import FieldType, RecordType, field_type, record_type
from foveal.gateway.config.fields import SIZE
from foveal.gateway.config.gateway import GatewayConfig

__all__ = ["config_schema", "described_fields"]

_REFERENCE = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}"}
"""Any value may come from the environment."""

_SIZE = {"type": "string", "pattern": r"^\d+(\.\d+)? ?([KMGTkmgt]i?)?B?$"}


def config_schema() -> dict[str, Any]:
    """JSON Schema 2020-12. Values may be written as ${NAME} wherever a single value stands."""
    definitions: dict[str, Any] = {}
    root = _record(record_type(GatewayConfig), definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Foveal gateway",
        **root,
        "$defs": definitions,
    }


def described_fields(cls: type[Any]) -> dict[str, str]:
    """Field -> the docstring under it, also of base classes; fields without one are left out."""
    found: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if dataclasses.is_dataclass(owner):
            found |= _docstrings(owner)
    return found


@cache
def _docstrings(cls: type[Any]) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        ):
            found[field.target.id] = " ".join(text.value.value.split())
    return found


def _record(record: RecordType, definitions: dict[str, Any]) -> dict[str, Any]:
    texts = described_fields(record.cls)
    defaults = {field.name: field.default for field in dataclasses.fields(record.cls)}
    properties = {}
    for name, kind in record.fields.items():
        schema = _schema(kind, definitions)
        notes: dict[str, Any] = {"description": texts[name]} if name in texts else {}
        if isinstance(defaults[name], bool | int | float | str):
            default = defaults[name]
            notes["default"] = default.name if isinstance(default, enum.Enum) else default
        properties[name] = {**schema, **notes}
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(record.required),
        "additionalProperties": False,
    }


def _schema(kind: FieldType, definitions: dict[str, Any]) -> dict[str, Any]:
    schema = _value(kind, definitions)
    return {"anyOf": [schema, {"type": "null"}]} if kind.optional else schema


def _value(kind: FieldType, definitions: dict[str, Any]) -> dict[str, Any]:
    if (record := kind.record) is not None:
        return _reference(record, definitions)
    core, origin = kind.core, get_origin(kind.core)
    if origin in (tuple, frozenset):
        return {"type": "array", "items": _schema(field_type(get_args(core)[0]), definitions)}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {
            "type": ["object", "null"],
            "additionalProperties": _schema(field_type(get_args(core)[1]), definitions),
        }
    if origin is Literal:
        return {"enum": list(get_args(core))}
    if isinstance(core, type) and issubclass(core, enum.Enum):
        return {"enum": [member.name for member in core]}
    if core in (str, Path):
        return {"type": ["string", "number"]} if core is str else {"type": "string"}
    if core is bool:
        return {"anyOf": [{"type": "boolean"}, _REFERENCE]}
    return {"anyOf": [_number(kind), *([_SIZE] if SIZE in kind.marks else []), _REFERENCE]}


def _number(kind: FieldType) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer" if kind.core is int else "number"}
    for limits in kind.ranges:
        words = {"minimum": limits.least, "maximum": limits.most, "exclusiveMinimum": limits.above}
        schema |= {word: limit for word, limit in words.items() if limit is not None}
    return schema


def _reference(record: RecordType, definitions: dict[str, Any]) -> dict[str, Any]:
    name = record.cls.__name__
    if name not in definitions:
        definitions[name] = {}  # before its fields: they may refer to it
        schema = _record(record, definitions)
        if record.shorthand is not None:
            schema = {"anyOf": [schema, _schema(record.fields[record.shorthand], definitions)]}
        definitions[name] = schema
    return {"$ref": f"#/$defs/{name}"}
