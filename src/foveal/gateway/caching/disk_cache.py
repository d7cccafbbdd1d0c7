"""Answers in an SQLite file: they survive a restart. Written behind; a damaged file is thrown away, never an error."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import structlog

from foveal.core.errors import ConfigurationError
from foveal.gateway.caching.cached_answer import CachedAnswer
from foveal.gateway.state.database import StateClosedError, StateDatabase

__all__ = ["DiskCache"]

_MIGRATIONS = (
    """
CREATE TABLE answers (
    key BLOB PRIMARY KEY,
    tenant TEXT NOT NULL,
    content_type BLOB NOT NULL,
    stored_at REAL NOT NULL,
    used_at REAL NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    origin TEXT NOT NULL,
    size INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX answers_by_use ON answers (used_at, size);
CREATE INDEX answers_by_tenant ON answers (tenant, used_at, size);
""",
    "DELETE FROM answers;",  # origin was one line, now it is three
)
_MAX_ENTRIES = 500_000
_MAX_PENDING = 500
# Make room for more than one answer at a time: summing the sizes costs the same for one.
_SPARE = 0.05
_log = structlog.get_logger(__name__)


class DiskCache:
    """Belongs to one event loop. `has` knows without asking the disk, so that a miss costs nothing."""

    def __init__(self, path: Path, max_bytes: int, ttl_s: float, tenant_share: float) -> None:
        self._database = _open(path)
        self.configure(max_bytes, ttl_s, tenant_share)
        self._keys: set[bytes] = set()
        self._written_bytes = 0
        self.num_bytes = 0
        """In the file, as of the last look."""

    def __len__(self) -> int:
        return len(self._keys)

    def configure(self, max_bytes: int, ttl_s: float, tenant_share: float) -> None:
        self._max_bytes, self._ttl_s, self._tenant_share = max_bytes, ttl_s, tenant_share

    async def open(self, now: float) -> None:
        """Drops what is too old, and learns what is there."""
        try:
            self._keys, self.num_bytes = await self._database.run(lambda connection: self._trim(connection, now))
        except (sqlite3.Error, StateClosedError) as error:
            _log.warning("the disk cache cannot be read", error=str(error))

    def has(self, key: bytes) -> bool:
        """Whether it is worth asking."""
        return key in self._keys

    async def get(self, key: bytes, tenant: str, now: float) -> CachedAnswer | None:
        try:
            answer = await self._database.run(lambda connection: _read(connection, key, tenant, now))
        except (sqlite3.Error, StateClosedError) as error:
            _log.warning("the disk cache cannot be read", error=str(error))
            answer = None
        if answer is None or answer.age_s(now) >= self._ttl_s:
            self._keys.discard(key)
            return None
        return answer

    def put(self, key: bytes, answer: CachedAnswer, now: float) -> None:
        """Some time soon."""
        if answer.num_bytes > self._max_bytes * self._tenant_share:
            return
        if not self._database.post(lambda connection: _write(connection, key, answer, now)):
            return
        self._keys.add(key)
        self.num_bytes += answer.num_bytes
        self._written_bytes += answer.num_bytes
        if self._written_bytes >= self._max_bytes * _SPARE:
            self._written_bytes = 0
            trimmed = self._database.run(lambda connection: self._trim(connection, now))
            trimmed.add_done_callback(self._take_over)

    async def flush(self) -> None:
        """Returns once everything is written, and counts anew."""
        self._keys, self.num_bytes = await self._database.run(_contents)

    def close(self) -> None:
        """Blocks until everything is written."""
        self._database.close()

    def _take_over(self, trimmed: asyncio.Future[tuple[set[bytes], int]]) -> None:
        """What is left. The few answers put while it was counted are missed, not lost, until the next time."""
        try:
            self._keys, self.num_bytes = trimmed.result()
        except (sqlite3.Error, StateClosedError) as error:
            _log.warning("the disk cache cannot be trimmed", error=str(error))

    def _trim(self, connection: sqlite3.Connection, now: float) -> tuple[set[bytes], int]:
        """Oldest use first, until budgets hold with room to spare; returns the contents. Runs in the database's thread."""
        connection.execute("DELETE FROM answers WHERE stored_at <= ?", (now - self._ttl_s,))
        aim = self._max_bytes * (1.0 - _SPARE)
        sizes = connection.execute("SELECT tenant, sum(size) FROM answers GROUP BY tenant").fetchall()
        for tenant, size in sizes:
            if size > aim * self._tenant_share:
                _drop_oldest(connection, "WHERE tenant = ?", (tenant,), size - aim * self._tenant_share)
        (size, count) = connection.execute("SELECT coalesce(sum(size), 0), count(*) FROM answers").fetchone()
        if size > aim:
            _drop_oldest(connection, "", (), size - aim)
        if count > _MAX_ENTRIES:
            connection.execute(
                "DELETE FROM answers WHERE key IN (SELECT key FROM answers ORDER BY used_at LIMIT ?)",
                (count - _MAX_ENTRIES,),
            )
        return _contents(connection)


def _open(path: Path) -> StateDatabase:
    """Raises ConfigurationError if not even a new file can be made."""
    try:
        return StateDatabase(path, _MIGRATIONS, durable=False, max_pending=_MAX_PENDING)
    except ConfigurationError as error:
        _log.warning("the disk cache is damaged; it begins anew", file=str(path), error=str(error))
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return StateDatabase(path, _MIGRATIONS, durable=False, max_pending=_MAX_PENDING)


def _contents(connection: sqlite3.Connection) -> tuple[set[bytes], int]:
    keys = {key for (key,) in connection.execute("SELECT key FROM answers")}
    (size,) = connection.execute("SELECT coalesce(sum(size), 0) FROM answers").fetchone()
    return keys, int(size)


def _read(connection: sqlite3.Connection, key: bytes, tenant: str, now: float) -> CachedAnswer | None:
    row = connection.execute(
        "SELECT tenant, body, content_type, stored_at, prompt_tokens, output_tokens, origin FROM answers "
        "WHERE key = ? AND tenant = ?",
        (key, tenant),
    ).fetchone()
    if row is None:
        return None
    connection.execute("UPDATE answers SET used_at = ? WHERE key = ?", (now, key))
    owner, body, content_type, stored_at, prompt_tokens, output_tokens, origin = row
    model, version, backend = origin.split("\n")
    return CachedAnswer(owner, body, content_type, stored_at, prompt_tokens, output_tokens, (model, version, backend))


def _write(connection: sqlite3.Connection, key: bytes, answer: CachedAnswer, now: float) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO answers (key, tenant, content_type, stored_at, used_at, prompt_tokens, output_tokens, origin, "
        "size, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            key,
            answer.tenant,
            answer.content_type,
            answer.stored_at,
            now,
            answer.prompt_tokens,
            answer.output_tokens,
            "\n".join(answer.origin),
            answer.num_bytes,
            answer.body,
        ),
    )


def _drop_oldest(connection: sqlite3.Connection, where: str, values: tuple[str, ...], excess: float) -> None:
    """Deletes answers by age of use until `excess` bytes are gone."""
    freed, doomed = 0, []
    for key, size in connection.execute(f"SELECT key, size FROM answers {where} ORDER BY used_at", values):
        if freed >= excess:
            break
        freed += size
        doomed.append((key,))
    connection.executemany("DELETE FROM answers WHERE key = ?", doomed)
