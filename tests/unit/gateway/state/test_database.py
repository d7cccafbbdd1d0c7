"""The state file: its own thread, transactions, other processes, bad files."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from foveal.core.errors import ConfigurationError
from foveal.gateway.state.connection import open_connection
from foveal.gateway.state.database import StateClosedError, StateDatabase
from foveal.gateway.state.schema import MIGRATIONS

TABLE = ("CREATE TABLE t (x INTEGER PRIMARY KEY)",)


def insert(x: int) -> Callable[[sqlite3.Connection], int]:
    return lambda connection: connection.execute("INSERT INTO t VALUES (?)", (x,)).rowcount


def values(connection: sqlite3.Connection) -> list[int]:
    return [x for (x,) in connection.execute("SELECT x FROM t ORDER BY x")]


async def test_jobs_run_in_order_in_one_thread_that_is_not_the_event_loop_s() -> None:
    database = StateDatabase(None, TABLE)
    threads = [await database.run(lambda _: threading.get_ident()) for _ in range(3)]
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()
    for x in range(100):
        database.post(insert(x))
    assert await database.run(values) == list(range(100))
    database.close()


async def test_a_failing_job_undoes_only_itself() -> None:
    database = StateDatabase(None, TABLE)

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (2)")
        raise ValueError("half done")

    database.post(insert(1))
    with pytest.raises(ValueError, match="half done"):
        await database.run(half)
    database.post(insert(1))  # a duplicate: refused, counted, not fatal
    database.post(insert(3))
    assert await database.run(values) == [1, 3]
    assert database.dropped_writes == 1
    database.close()


async def test_closing_writes_everything_and_later_jobs_are_refused(tmp_path: Path) -> None:
    database = StateDatabase(tmp_path / "s.db", TABLE)
    for x in range(1000):
        assert database.post(insert(x))
    database.close()
    database.close()
    assert not database.post(insert(5000))
    with pytest.raises(StateClosedError):
        await database.run(values)
    again = StateDatabase(tmp_path / "s.db", TABLE)
    assert await again.run(values) == list(range(1000))
    again.close()


async def test_writes_beyond_the_bound_are_dropped_and_counted_not_kept_in_memory() -> None:
    database = StateDatabase(None, TABLE, max_pending=5)
    release = threading.Event()
    held = database.run(lambda _: release.wait())
    accepted = [database.post(insert(x)) for x in range(20)]
    release.set()
    await held
    assert accepted.count(False) >= 14
    assert len(await database.run(values)) == accepted.count(True)
    assert database.dropped_writes == accepted.count(False)
    database.close()


async def test_a_file_locked_by_another_process_fails_the_job_and_the_next_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveal.gateway.state.connection._BUSY_TIMEOUT_MS", 1)
    database = StateDatabase(tmp_path / "s.db", TABLE)
    other = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        await database.run(insert(1))
    other.execute("COMMIT")
    other.close()
    assert await database.run(insert(1)) == 1
    database.close()


def test_only_the_owner_can_read_the_file(tmp_path: Path) -> None:
    connection = open_connection(tmp_path / "s.db", MIGRATIONS)
    connection.execute("INSERT INTO daily_usage VALUES ('a', 1, 1, 1)")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    connection.close()
    assert set(modes.values()) == {0o600}
    assert "s.db-wal" in modes


def test_migrations_are_applied_once_and_in_order(tmp_path: Path) -> None:
    open_connection(tmp_path / "s.db", TABLE).close()
    connection = open_connection(
        tmp_path / "s.db", (*TABLE, "ALTER TABLE t ADD COLUMN y;\nINSERT INTO t VALUES (1, 2);")
    )
    assert connection.execute("SELECT * FROM t").fetchall() == [(1, 2)]
    connection.close()
    connection = open_connection(tmp_path / "s.db", (*TABLE, "ignored: it was applied"))
    connection.close()


def test_a_failing_migration_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    open_connection(tmp_path / "s.db", TABLE).close()
    with pytest.raises(ConfigurationError, match="cannot be used"):
        open_connection(tmp_path / "s.db", (*TABLE, "CREATE TABLE u (x);\nnonsense;"))
    connection = open_connection(tmp_path / "s.db", TABLE)
    assert [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")] == ["t"]
    connection.close()


@pytest.mark.parametrize("content", [b"this is not a database, though it is long enough to be one" * 10])
def test_a_damaged_file_is_an_error_with_a_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.db").write_bytes(content)
    with pytest.raises(ConfigurationError, match="move the file away"):
        open_connection(tmp_path / "s.db", TABLE)


def test_a_file_of_a_newer_version_and_a_path_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    open_connection(tmp_path / "s.db", (*TABLE, "CREATE TABLE u (x)")).close()
    with pytest.raises(ConfigurationError, match="run a newer foveal"):
        open_connection(tmp_path / "s.db", TABLE)
    with pytest.raises(ConfigurationError, match="give a path that this user may write"):
        open_connection(tmp_path / "none" / "s.db", TABLE)
