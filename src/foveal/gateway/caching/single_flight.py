"""Identical requests at the same time become one.

The one request belongs to no client: a task of its own asks the backend and publishes the answer, and every client, the
first one too, reads along. So a client that leaves harms nobody, nor does one that reads slowly until it is `max_lag_bytes`
behind; when the last one has left, the task is cancelled. If it fails before anything was published, the next client in line
tries with its own request, one after the other, so that a failure does not turn into a herd.
"""

from __future__ import annotations

import asyncio
from functools import partial

from foveal.gateway.caching.flight import Flight, Lead, Reader

__all__ = ["SingleFlight"]

_MAX_LAG_BYTES = 4 << 20
"""More than a model writes in one answer: in practice a slow reader never holds up the others."""


class SingleFlight:
    """Belongs to one event loop. `max_lag_bytes` bounds what one flight holds for its slowest reader."""

    def __init__(self, max_lag_bytes: int = _MAX_LAG_BYTES) -> None:
        self._flights: dict[bytes, Flight] = {}
        self._tasks: dict[Flight, asyncio.Task[None]] = {}
        self._max_lag_bytes = max_lag_bytes

    def __len__(self) -> int:
        """Flights under way."""
        return len(self._tasks)

    def join(self, key: bytes, lead: Lead) -> Reader:
        """A reader of the flight `key`; `lead` begins one if there is none. Nothing is awaited: two cannot both begin."""
        flight = self._flights.get(key)
        if flight is None or not flight.is_joinable:
            flight = self._flights[key] = Flight(self._max_lag_bytes)
        reader = Reader(flight, lead, partial(self._leave, key, flight))
        flight.readers.append(reader)
        if flight not in self._tasks:
            reader.leads = True
            task = asyncio.get_running_loop().create_task(self._fly(key, flight), name="single flight")
            self._tasks[flight] = task
            # A task that is cancelled before its first step never runs its `finally`.
            task.add_done_callback(lambda _: self._land(key, flight))
        return reader

    async def close(self) -> None:
        """Breaks off what is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _leave(self, key: bytes, flight: Flight, reader: Reader) -> None:
        if reader in flight.readers:
            flight.readers.remove(reader)
            flight.moved()
        if not flight.readers and (task := self._tasks.get(flight)) is not None:
            task.cancel()
            self._land(key, flight)  # nobody may join what is being cancelled

    def _land(self, key: bytes, flight: Flight) -> None:
        self._tasks.pop(flight, None)
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def _fly(self, key: bytes, flight: Flight) -> None:
        try:
            while (leader := next((reader for reader in flight.readers if reader.failure is None), None)) is not None:
                leader.leads = True
                try:
                    await leader.lead(flight)
                except Exception as error:
                    if flight.started:
                        flight.fail(error)
                        return
                    leader.failure = error
                    leader.wake()
                else:
                    if not flight.complete:
                        flight.fail(RuntimeError("the request ended without finishing its answer"))
                    return
        except asyncio.CancelledError as error:
            flight.fail(error)
            raise
        finally:
            self._land(key, flight)  # at once: nobody may join what will publish no more
