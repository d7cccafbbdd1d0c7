"""The seam between the socket and the request's life: one hot request, completely received, and the way to answer it.

`HotServer(handler, app, config)` (hot_server.py) calls `handler(incoming)` as a task once the body is there. The task is
CANCELLED when the client goes away, so that `try/finally` in the handler is all the clean-up there is to write;
`incoming.disconnected` tells that cancellation from a shutdown. A handler that returns without an answer, or raises, gives a
500 (or a broken connection, if the head was already sent).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

from foveal.gateway.request.view import Endpoint
from foveal.gateway.wire.budget import ByteBudget

__all__ = ["ASGIApp", "Handler", "HeadCheck", "Headers", "Incoming", "Refusal"]

Buffer = bytes | bytearray | memoryview
Headers = Iterable[tuple[bytes, bytes]]
"""Names and values of an answer. Never content-length, transfer-encoding, connection or date: the wire writes those."""


class Incoming(Protocol):
    """One request to a hot route (POST /v1/chat/completions, /v1/completions).

    Exactly one of `respond` or `start` .. `write`* .. `finish` answers it; calls on a vanished client are silently dropped.
    """

    budget: ByteBudget | None
    """Where the bytes of its body are reserved."""
    reserved: int
    """How many are given back when the handler returns. Who works on after it with the body takes them over: sets 0 here."""

    @property
    def endpoint(self) -> Endpoint: ...

    @property
    def path(self) -> bytes:
        """Without the query, as sent."""
        ...

    @property
    def query(self) -> bytes: ...

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        """Names in lower case; fields sent several times are joined by ", " (those that must be single were refused)."""
        ...

    @property
    def body(self) -> bytearray:
        """Ours until the handler returns; then the buffer is used again, unless somebody still refers to it. Do not resize.

        Who works on after the handler (a shared flight) keeps the bytearray itself, not the Incoming: there it is gone.
        """
        ...

    @property
    def peer(self) -> str:
        """The client's address, "" if unknown."""
        ...

    @property
    def received_s(self) -> float:
        """When the head was complete, time.monotonic()."""
        ...

    @property
    def body_done_s(self) -> float:
        """When the body was complete, time.monotonic()."""
        ...

    @property
    def disconnected(self) -> bool:
        """The client is gone."""
        ...

    @property
    def started(self) -> bool:
        """A head was sent: from here on an error can only be told inside the stream, or by `abort`."""
        ...

    def respond(self, status: int, headers: Headers, body: Buffer) -> None:
        """The whole answer at once, with a Content-Length."""
        ...

    def start(self, status: int, headers: Headers, content_length: int | None = None) -> None:
        """Head of a streamed answer: chunked, unless the length is known."""
        ...

    async def write(self, chunk: Buffer) -> None:
        """Body bytes. Waits while the client reads slower than we write; `chunk` must not be changed afterwards."""
        ...

    def finish(self, last: Buffer = b"") -> None:
        """The streamed answer is complete. Idempotent. `last` saves a system call where it is known to be the last."""
        ...

    def abort(self) -> None:
        """Break the connection, so that the client cannot take half an answer for a whole one."""
        ...


Handler = Callable[[Incoming], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer given instead of a request's life."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


HeadCheck = Callable[[Mapping[bytes, bytes]], Refusal | None]
"""Looks at a hot request's headers before its body is read (a wrong key must not cost 50 MB of memory). Called in the loop: it
must be quick, and let pass what it cannot decide at once."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
ASGIApp = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]
