"""Keys in the state file. Every function is one step on a connection, for `StateDatabase.run` or a command of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from foveal.core.errors import ConfigurationError
from foveal.gateway.tenancy.api_key import KeyRecord, NewKey, make_key
from foveal.gateway.tenancy.slow_hash import DEFAULT_LOG2_N

__all__ = ["KeyStore"]

_COLUMNS = "id, tenant, name, hint, hash, created_at, expires_at, revoked_at, last_used_at"


class KeyStore:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def create(
        self, tenant: str, name: str, now: float, *, expires_at: float | None = None, log2_n: int = DEFAULT_LOG2_N
    ) -> NewKey:
        """`now` and `expires_at` in seconds since 1970. The key's text is in the result and nowhere else."""
        new = make_key(tenant, name, now, expires_at=expires_at, log2_n=log2_n)
        self.add(new.record)
        return new

    def add(self, record: KeyRecord) -> None:
        self._connection.execute(
            f"INSERT INTO keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.id,
                record.tenant,
                record.name,
                record.hint,
                record.hash,
                record.created_at,
                record.expires_at,
                record.revoked_at,
                record.last_used_at,
            ),
        )

    def revoke(self, key_id: str, now: float) -> KeyRecord:
        """The revoked key. A second time changes nothing. Raises ConfigurationError for an id that does not exist."""
        self._connection.execute("UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (now, key_id))
        found = self.find(key_id)
        if found is None:
            raise ConfigurationError(f"there is no key {key_id}; `foveal keys list` shows all")
        return found

    def find(self, key_id: str) -> KeyRecord | None:
        row = self._connection.execute(f"SELECT {_COLUMNS} FROM keys WHERE id = ?", (key_id,)).fetchone()
        return KeyRecord(*row) if row else None

    def all(self, tenant: str | None = None) -> list[KeyRecord]:
        """Oldest first."""
        where, values = ("", ()) if tenant is None else (" WHERE tenant = ?", (tenant,))
        rows = self._connection.execute(f"SELECT {_COLUMNS} FROM keys{where} ORDER BY created_at, id", values)
        return [KeyRecord(*row) for row in rows]

    def generation(self) -> int:
        """Changes whenever a key was added, revoked or removed, by whatever process."""
        (value,) = self._connection.execute("SELECT value FROM meta WHERE name = 'key_generation'").fetchone()
        return int(value)

    def note_use(self, used_at: Mapping[str, float] | Iterable[tuple[str, float]]) -> None:
        """Key id -> when it was last used."""
        rows = used_at.items() if isinstance(used_at, Mapping) else used_at
        self._connection.executemany(
            "UPDATE keys SET last_used_at = max(coalesce(last_used_at, 0), ?) WHERE id = ?",
            [(at, key_id) for key_id, at in rows],
        )
