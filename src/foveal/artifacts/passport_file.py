"""passport.json: written in one step, read with every mistake explained."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from foveal.artifacts.canonical_json import digest_of
from foveal.artifacts.passport import PASSPORT_NAME, SCHEMA_VERSION, UNDIGESTED, Passport
from foveal.artifacts.storage import explain_storage_errors
from foveal.core.errors import PassportDigestError, PassportMissingError, PassportSchemaError

__all__ = ["has_passport", "read_passport", "record_proof", "write_passport"]

_REMEDY = "Compress the model again, or get a fresh copy of the artefact"


def has_passport(directory: Path) -> bool:
    return (directory / PASSPORT_NAME).is_file()


def write_passport(directory: Path, passport: Passport) -> Path:
    """Write passport.json: the old one stays until the new one is complete. Raises StorageError."""
    path = directory / PASSPORT_NAME
    partial = directory / f".{PASSPORT_NAME}.partial"
    record = {"passport_digest": passport.digest, **msgspec.to_builtins(passport)}
    with explain_storage_errors(path), partial.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    with explain_storage_errors(path):
        partial.replace(path)
    return path


def read_passport(directory: Path) -> Passport:
    """The passport of a directory, its own digest checked; the files are `verify`'s business.

    Raises PassportMissingError, PassportSchemaError or PassportDigestError.
    """
    path = directory / PASSPORT_NAME
    if not path.is_file():
        raise PassportMissingError(
            f"{directory} has no {PASSPORT_NAME}", remedy="Only directories that `foveal compress` wrote have one"
        )
    with explain_storage_errors(path):
        data = path.read_bytes()
    record = _decode(path, data)
    if record.get("schema_version") != SCHEMA_VERSION:
        raise PassportSchemaError(
            f"{path} has schema version {record.get('schema_version')!r}",
            f"version {SCHEMA_VERSION}",
            "Read it with the version of foveal that wrote it, or compress the model again",
        )
    stated = record.pop("passport_digest", None)
    # Of the record as it is: reading into a Passport drops fields that it does not know.
    found = digest_of({name: value for name, value in record.items() if name not in UNDIGESTED})
    if found != stated:
        raise PassportDigestError(
            f"the contents of {path} have digest {found}",
            f"{stated} as written in it: it was changed after it was written",
            _REMEDY,
        )
    try:
        passport = msgspec.convert(record, Passport)
    except (msgspec.ValidationError, ValueError) as error:
        raise PassportSchemaError(f"{path} is not a passport: {error}", remedy=_REMEDY) from error
    if passport.digest != stated:  # the raw record fits: it has fields that this version does not know, or lacks some
        raise PassportSchemaError(
            f"{path} has unknown or missing fields", f"those of schema version {SCHEMA_VERSION}", _REMEDY
        )
    return passport


def record_proof(directory: Path, *, evaluation: dict[str, Any] | None, verdict: dict[str, Any] | None) -> Passport:
    """Add evaluation and verdict to a directory's passport; its digest stays. Returns the new passport."""
    passport = replace(read_passport(directory), evaluation=evaluation, verdict=verdict)
    write_passport(directory, passport)
    return passport


def _decode(path: Path, data: bytes) -> dict[str, Any]:
    try:
        record = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PassportSchemaError(f"{path} is not JSON: {error}", remedy=_REMEDY) from error
    if not isinstance(record, dict):
        raise PassportSchemaError(f"{path} holds a {type(record).__name__}", "an object", _REMEDY)
    return record
