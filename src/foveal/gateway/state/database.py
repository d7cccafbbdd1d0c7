"""One SQLite file and the one thread that touches it, so that a slow disk never holds up the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import structlog

from foveal.core.errors import FovealError
from foveal.gateway.state.connection import open_connection

__all__ = ["StateClosedError", "StateDatabase"]

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]
_MAX_BATCH = 500
_log = structlog.get_logger(__name__)


class StateClosedError(FovealError):
    """The database was closed before the job ran."""


class StateDatabase:
    """`run` gives a result; `post` is write-behind. Jobs run in the order given; each is one transaction to the others.

    `path` None keeps everything in memory. Other processes may use the same file (WAL, busy time-out).
    Raises ConfigurationError when the file cannot be opened.
    """

    def __init__(
        self, path: Path | None, migrations: Sequence[str], *, durable: bool = True, max_pending: int = 10_000
    ) -> None:
        self.path = path
        self.dropped_writes = 0
        """Posted jobs that were lost: the queue was full, or the disk refused them."""
        self._connection = open_connection(path, migrations, durable=durable)
        self._jobs: queue.SimpleQueue[tuple[Job[Any], Future[Any] | None] | None] = queue.SimpleQueue()
        self._max_pending = max_pending
        self._closed = False
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=f"state {path or 'memory'}", daemon=True)
        self._thread.start()

    def run(self, job: Job[T]) -> asyncio.Future[T]:
        """The job's result, awaitable. Raises what the job raises (sqlite3.Error among it), StateClosedError."""
        return asyncio.wrap_future(self._submit(job))

    def post(self, job: Job[Any]) -> bool:
        """Runs the job some time soon; False if it was dropped because too many wait or the database is closed."""
        with self._closing:
            if self._closed or self._jobs.qsize() >= self._max_pending:
                self.dropped_writes += 1
                return False
            self._jobs.put((job, None))
        return True

    async def flush(self) -> None:
        """Returns once everything posted before is on disk."""
        await self.run(lambda _: None)

    def close(self) -> None:
        """Finishes all jobs, then closes the file. Blocks; idempotent."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        self._thread.join()

    def _submit(self, job: Job[T]) -> Future[T]:
        future: Future[T] = Future()
        with self._closing:
            if self._closed:
                future.set_exception(StateClosedError(f"the state database {self.path} is closed"))
            else:
                self._jobs.put((job, future))
        return future

    def _work(self) -> None:
        running = True
        while running:
            batch = [self._jobs.get()]
            while len(batch) < _MAX_BATCH and not self._jobs.empty():
                batch.append(self._jobs.get())
            jobs = [item for item in batch if item is not None]
            running = len(jobs) == len(batch)
            if jobs:
                self._run_batch(jobs)
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA optimize")
        self._connection.close()

    def _run_batch(self, jobs: list[tuple[Job[Any], Future[Any] | None]]) -> None:
        """All of them in one transaction (one sync to disk), each in a savepoint of its own."""
        jobs = [(job, future) for job, future in jobs if future is None or future.set_running_or_notify_cancel()]
        done: list[tuple[Future[Any] | None, Any, BaseException | None]] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for job, future in jobs:
                done.append((future, *self._run_one(job)))
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:  # locked for too long, disk full, damaged: nothing of the batch was written
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            done = [(future, None, error) for _, future in jobs]
        for future, result, failure in done:
            if future is None:
                if failure is not None:
                    self.dropped_writes += 1
                    _log.error("state write failed", file=str(self.path), error=str(failure))
            elif failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(result)

    def _run_one(self, job: Job[Any]) -> tuple[Any, BaseException | None]:
        self._connection.execute("SAVEPOINT job")
        try:
            result = job(self._connection)
        except Exception as error:
            self._connection.execute("ROLLBACK TO job")
            self._connection.execute("RELEASE job")
            return None, error
        self._connection.execute("RELEASE job")
        return result, None
