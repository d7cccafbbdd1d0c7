"""One byte string per value: what digests are taken of."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

__all__ = ["canonical_json", "digest_of"]


def canonical_json(value: Any) -> bytes:
    """Sorted keys, no white space, UTF-8, shortest floats; NaN and infinities become null.

    Encoded, read back and encoded again: keys that are not strings, tuples and dataclasses come out as they will be
    read from a file, so that a value and its copy from disk have the same digest.
    """
    plain = msgspec.json.decode(msgspec.json.encode(value))
    return msgspec.json.encode(plain, order="sorted")


def digest_of(value: Any) -> str:
    """ "sha256:" and 64 hex digits of the canonical JSON."""
    return "sha256:" + hashlib.sha256(canonical_json(value)).hexdigest()
