"""The tables that survive a restart. Never change a migration that was released: append one."""

from __future__ import annotations

__all__ = ["MIGRATIONS"]

_FIRST = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('key_generation', 0);

CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    hint BLOB NOT NULL,
    hash TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL,
    revoked_at REAL,
    last_used_at REAL
) WITHOUT ROWID;
CREATE TRIGGER keys_added AFTER INSERT ON keys BEGIN
    UPDATE meta SET value = value + 1 WHERE name = 'key_generation';
END;
CREATE TRIGGER keys_changed AFTER UPDATE OF tenant, hint, hash, expires_at, revoked_at ON keys BEGIN
    UPDATE meta SET value = value + 1 WHERE name = 'key_generation';
END;
CREATE TRIGGER keys_removed AFTER DELETE ON keys BEGIN
    UPDATE meta SET value = value + 1 WHERE name = 'key_generation';
END;

CREATE TABLE daily_usage (
    tenant TEXT NOT NULL,
    day INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    PRIMARY KEY (tenant, day)
) WITHOUT ROWID;

CREATE TABLE feedback (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    tenant TEXT NOT NULL,
    request_id TEXT NOT NULL,
    model TEXT,
    version TEXT,
    backend TEXT,
    score REAL NOT NULL,
    comment TEXT NOT NULL,
    UNIQUE (tenant, request_id)
);
CREATE INDEX feedback_by_model ON feedback (model, version, at);
"""

MIGRATIONS = (_FIRST,)
"""Days are days since 1970-01-01 UTC; times are seconds since then."""
