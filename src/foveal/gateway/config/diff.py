"""What a reload changes, in words: for the log, and to know what only a restart can do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from foveal.gateway.config.field_type import FieldType, field_type, record_type
from foveal.gateway.config.fields import SECRET
from foveal.gateway.config.gateway import GatewayConfig
from foveal.gateway.config.problems import Place, shown

__all__ = ["Change", "ConfigDiff", "diff"]

_ABSENT: Any = object()
_RESTART: tuple[Place, ...] = (
    ("listen", "host"),
    ("listen", "port"),
    ("listen", "backlog"),
    ("listen", "tls"),
    ("state",),
    ("upstream_tls",),
    ("logging", "level"),
    ("logging", "format"),
    ("tracing",),
    ("metrics", "max_tenant_labels"),
)
"""Sockets are bound, files are open, logs, tracer and labels are set up: these wait for a restart."""


@dataclass(frozen=True, slots=True)
class Change:
    place: Place
    before: str
    after: str
    needs_restart: bool

    def __str__(self) -> str:
        return f"{shown(self.place)}: {self.before} -> {self.after}"


@dataclass(frozen=True, slots=True)
class ConfigDiff:
    changes: tuple[Change, ...]

    @property
    def needs_restart(self) -> tuple[Change, ...]:
        """What stays as it was until then."""
        return tuple(change for change in self.changes if change.needs_restart)

    def __bool__(self) -> bool:
        return bool(self.changes)


def diff(before: GatewayConfig, after: GatewayConfig) -> ConfigDiff:
    """Secrets are never shown: a changed one reads `(secret) -> (another secret)`."""
    return ConfigDiff(tuple(_differences((), field_type(GatewayConfig), before, after)))


def _differences(place: Place, kind: FieldType, before: Any, after: Any) -> Iterator[Change]:
    if before == after:
        return
    cls: Any = type(before)
    if dataclasses.is_dataclass(before) and isinstance(after, cls):
        for name, below in record_type(cls).fields.items():
            yield from _differences((*place, name), below, getattr(before, name), getattr(after, name))
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in {**before, **after}:
            yield from _differences((*place, name), kind, before.get(name, _ABSENT), after.get(name, _ABSENT))
    elif isinstance(before, tuple) and isinstance(after, tuple) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _differences((*place, index), kind, old, new)
    else:
        secret = SECRET in kind.marks
        yield Change(place, _words(before, secret, ""), _words(after, secret, "another "), _waits(place, before, after))


def _words(value: Any, secret: bool, other: str) -> str:
    if value is _ABSENT or value is None:
        return "(none)"
    # Dataclasses keep their secrets out of repr.
    return f"({other}secret)" if secret else str(value)


def _waits(place: Place, before: Any, after: Any) -> bool:
    # The disk cache's budget can change, but not whether there is one.
    is_switched = place == ("cache", "disk_bytes") and not (before and after)
    return is_switched or any(place[: len(fixed)] == fixed for fixed in _RESTART)
