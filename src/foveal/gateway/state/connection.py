"""Opens an SQLite file that several processes share: write-ahead log, busy time-out, migrations, owner-only permissions."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from foveal.core.errors import ConfigurationError

__all__ = ["open_connection"]

_BUSY_TIMEOUT_MS = 5_000


def open_connection(path: Path | None, migrations: Sequence[str], *, durable: bool = True) -> sqlite3.Connection:
    """A connection in autocommit mode, usable from any one thread at a time. `migrations[i]` brings version i to i + 1.

    `durable` False trades the last writes before a power loss for speed. Raises ConfigurationError.
    """
    if path is not None:
        _create_private(path)
    try:
        connection = sqlite3.connect(
            ":memory:" if path is None else path,
            isolation_level=None,
            check_same_thread=False,
            timeout=_BUSY_TIMEOUT_MS / 1e3,
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
        connection.execute("PRAGMA foreign_keys = ON")
        _migrate(connection, migrations, path)
    except sqlite3.Error as error:
        raise ConfigurationError(
            f"the state file {path} cannot be used ({error}); check the disk, or move the file away to start anew"
        ) from error
    return connection


def _create_private(path: Path) -> None:
    """SQLite would create it readable by everybody; its log files take its permissions."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise ConfigurationError(
            f"the state file {path} cannot be opened ({error.strerror}); give a path that this user may write"
        ) from error


def _migrate(connection: sqlite3.Connection, migrations: Sequence[str], path: Path | None) -> None:
    # Under the write lock: two processes may start at the same moment.
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(migrations):
            raise ConfigurationError(
                f"the state file {path} has schema {version}, this version knows {len(migrations)}; run a newer foveal"
            )
        for number in range(version, len(migrations)):
            for statement in _statements(migrations[number]):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _statements(script: str) -> list[str]:
    """executescript would commit the transaction. A statement ends where SQLite says it does (triggers hold semicolons)."""
    statements: list[str] = []
    current = ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    if current.strip():
        statements.append(current)
    return statements
