"""One shared answer on its way: what was published so far, and who reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

__all__ = ["Flight", "FlightBrokenError", "Headers", "Lead", "Reader"]

Headers = tuple[tuple[bytes, bytes], ...]


class FlightBrokenError(Exception):
    """The shared answer broke off after its head: readers must break off theirs. `__cause__` says why."""


class Flight:
    """The publishing side has the calls of `Incoming`: code that answers a client can answer a flight as well."""

    def __init__(self, max_lag_bytes: int) -> None:
        self.status = 0
        self.headers: Headers = ()
        self.started = False
        self.complete = False
        self.failure: BaseException | None = None
        self.readers: list[Reader] = []
        self._max_lag_bytes = max_lag_bytes
        # The whole answer while it is short; beyond the limit only what somebody has yet to read.
        self._chunks: list[bytes] = []
        self._first_index = 0
        self._num_held = 0
        self._moved = asyncio.Event()

    @property
    def disconnected(self) -> bool:
        """Nobody reads any more."""
        return not self.readers

    @property
    def is_joinable(self) -> bool:
        """A newcomer could still read it from its beginning."""
        return self._first_index == 0 and not self.complete and self.failure is None

    def respond(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """The whole answer at once."""
        self.start(status, headers)
        self.finish(body)

    def start(self, status: int, headers: Iterable[tuple[bytes, bytes]], content_length: int | None = None) -> None:
        self.status, self.headers, self.started = status, tuple(headers), True
        self._wake()

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Waits while the slowest reader is more than the limit behind."""
        self._append(chunk)
        while self._num_held > self._max_lag_bytes:
            self._forget_read()
            if self._num_held <= self._max_lag_bytes:
                return
            self._moved.clear()
            await self._moved.wait()

    def finish(self, last: bytes | bytearray | memoryview = b"") -> None:
        if last:
            self._append(last)
        self.complete = True
        self._wake()

    def abort(self) -> None:
        """The answer broke off."""
        self.fail(ConnectionAbortedError("the answer was broken off"))

    def fail(self, error: BaseException) -> None:
        if not self.complete and self.failure is None:
            self.failure = error
            self._wake()

    def chunk(self, index: int) -> bytes | None:
        """The chunk of that index; None if it has not come."""
        at = index - self._first_index
        return self._chunks[at] if at < len(self._chunks) else None

    def moved(self) -> None:
        """A reader took something or left."""
        self._moved.set()

    def _append(self, chunk: bytes | bytearray | memoryview) -> None:
        data = bytes(chunk)  # no copy of what is bytes already
        self._chunks.append(data)
        self._num_held += len(data)
        self._wake()

    def _forget_read(self) -> None:
        """Drops what all have read; from now on nobody can join."""
        read = min((reader.next_index for reader in self.readers), default=self._first_index + len(self._chunks))
        gone = self._chunks[: read - self._first_index]
        del self._chunks[: len(gone)]
        self._first_index += len(gone)
        self._num_held -= sum(map(len, gone))

    def _wake(self) -> None:
        for reader in self.readers:
            reader.wake()


Lead = Callable[[Flight], Awaitable[None]]
"""Gets the answer and publishes it: `respond`, or `start` .. `write`* .. `finish`."""


class Reader:
    """One client of a flight: `async with flights.join(key, lead) as reader`, so that it leaves whatever happens."""

    def __init__(self, flight: Flight, lead: Lead, leave: Callable[[Reader], None]) -> None:
        self._flight = flight
        self._leave = leave
        self._waiter: asyncio.Future[None] | None = None
        self.lead = lead
        self.leads = False
        """Its own request is the one that is asked. May become true while it waits."""
        self.next_index = 0
        self.failure: BaseException | None = None
        """What its own lead raised before anything was published."""

    async def __aenter__(self) -> Reader:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._leave(self)

    async def head(self) -> tuple[int, Headers]:
        """Status and headers. Raises what this reader's own lead raised; another one's failure makes the next one lead."""
        # Its own failure first: its request is over, though another's answer may have begun meanwhile.
        while self.failure is None and not self._flight.started:
            if self._flight.failure is not None:
                raise FlightBrokenError("the shared request ended without an answer") from self._flight.failure
            await self._wait()
        if self.failure is not None:
            raise self.failure
        return self._flight.status, self._flight.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises FlightBrokenError if it breaks off."""
        flight = self._flight
        while True:
            chunk = flight.chunk(self.next_index)
            if chunk is not None:
                self.next_index += 1
                flight.moved()
                yield chunk
            elif flight.complete:
                return
            elif flight.failure is not None:
                raise FlightBrokenError("the shared answer broke off") from flight.failure
            else:
                await self._wait()

    async def body(self) -> bytes:
        """All of it, once it is complete."""
        return b"".join([chunk async for chunk in self.chunks()])

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter
