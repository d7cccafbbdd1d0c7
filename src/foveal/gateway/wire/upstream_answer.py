"""One answer of a backend, filled by its connection and emptied by whoever relays it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from foveal.gateway.wire.upstream import UpstreamError, UpstreamHead

__all__ = ["AnswerSource", "UpstreamAnswer"]

_PAUSE_ABOVE = 256 << 10
"""Unread bytes above which the backend's socket is not read: a slow client must not fill our memory."""


class AnswerSource(Protocol):
    """What an answer needs of its connection."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def expect_more(self) -> None:
        """Somebody waits now: the idle time-out runs."""
        ...

    def give_up(self) -> None:
        """Nobody wants the rest."""
        ...


class UpstreamAnswer:
    """Implements `UpstreamResponse`. At most one task waits on it at a time."""

    __slots__ = (
        "_error",
        "_held",
        "_loop",
        "_paused",
        "_pieces",
        "_source",
        "_waiter",
        "begun_body",
        "complete",
        "head",
        "received",
    )

    head: UpstreamHead

    def __init__(self, loop: asyncio.AbstractEventLoop, source: AnswerSource) -> None:
        self._loop = loop
        self._source: AnswerSource | None = source
        self._pieces: list[bytes] = []
        self._held = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: UpstreamError | None = None
        self.complete = False
        self.begun_body = False
        """The first body byte came."""
        self.received = False
        """At least one byte of the answer came, if only of its head."""

    # Called by the connection.

    def add(self, piece: bytes) -> None:
        self.begun_body = True
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held > _PAUSE_ABOVE and not self._paused and self._source is not None:
            self._paused = True
            self._source.pause()

    @property
    def has_news(self) -> bool:
        return bool(self._pieces)

    @property
    def is_paused(self) -> bool:
        """The backend is not read, for the client's sake: its silence is not its fault."""
        return self._paused

    def end(self) -> None:
        """The last byte is here: the connection is somebody else's from now on."""
        self.complete = True
        self._source = None

    def fail(self, error: UpstreamError) -> None:
        if not self.complete and self._error is None:
            self._error = error
            self._source = None
        self.wake()

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    # Called by the relay.

    async def begun(self) -> None:
        """Waits for the first body byte, or the end. Raises UpstreamError."""
        while not (self._pieces or self.complete):
            if self._error is not None:
                raise self._error
            waiter = self._waiter = self._loop.create_future()
            await waiter

    def take(self) -> bytes:
        pieces = self._pieces
        if not pieces:
            return b""
        self._pieces = []
        self._held = 0
        if self._paused:
            self._paused = False
            if self._source is not None:
                self._source.resume()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def chunks(self) -> AsyncIterator[bytes]:
        while True:
            if data := self.take():
                yield data
            elif self.complete:
                return
            elif self._error is not None:
                raise self._error
            else:
                if self._source is not None:
                    self._source.expect_more()
                waiter = self._waiter = self._loop.create_future()
                await waiter

    async def close(self) -> None:
        self.drop()

    def drop(self) -> None:
        """Idempotent, and quick: no need to wait for anything."""
        source, self._source = self._source, None
        if source is not None:
            if self._error is None:
                self._error = UpstreamError("the answer was closed before its end", "body")
            source.give_up()
