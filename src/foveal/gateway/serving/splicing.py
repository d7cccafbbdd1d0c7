"""The forwarded body: the received bytes, uncopied, with short ranges replaced."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

__all__ = ["Splice", "inserted_field", "json_text", "spliced"]

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Splice:
    """Bytes [start, end) of the body become `replacement`; start == end inserts."""

    start: int
    end: int
    replacement: bytes


def spliced(body: Buffer, splices: Iterable[Splice]) -> list[Buffer]:
    """Parts that make up the new body in order. Ranges must not overlap; the order of `splices` does not matter.

    Raises ValueError for ranges that overlap or leave the body.
    """
    ordered = sorted(splices, key=lambda splice: splice.start)
    if not ordered:
        return [body]
    view = memoryview(body)
    parts: list[Buffer] = []
    position = 0
    for splice in ordered:
        if not position <= splice.start <= splice.end <= len(view):
            raise ValueError(
                f"range {splice.start}..{splice.end} of a body of {len(view)} bytes, done up to {position}"
            )
        if splice.start > position:
            parts.append(view[position : splice.start])
        if splice.replacement:
            parts.append(splice.replacement)
        position = splice.end
    if position < len(view):
        parts.append(view[position:])
    return parts


def json_text(value: str) -> bytes:
    """A JSON string without its quotes."""
    return msgspec.json.encode(value)[1:-1]


def inserted_field(body: bytes | bytearray, name: str, value: object) -> Splice:
    """Adds a field behind the opening brace of a JSON object that has at least one field already."""
    brace = body.find(b"{")
    if brace < 0:
        raise ValueError("the body does not begin with an object")
    return Splice(brace + 1, brace + 1, msgspec.json.encode(name) + b":" + msgspec.json.encode(value) + b",")
