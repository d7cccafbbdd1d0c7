"""The seam to backends: send the bytes of a request, stream the bytes of the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from foveal.core.errors import FovealError
from foveal.gateway.backends.backend import BackendSpec

__all__ = ["Stage", "UpstreamClient", "UpstreamError", "UpstreamHead", "UpstreamResponse", "UpstreamTimeouts"]

Buffer = bytes | bytearray | memoryview
Stage = Literal["connect", "send", "first_byte", "body", "protocol"]


class UpstreamError(FovealError):
    """The backend could not be reached, broke off or answered nonsense. `stage` says how far the request came."""

    def __init__(self, message: str, stage: Stage, timed_out: bool = False) -> None:
        super().__init__(message)
        self.stage: Stage = stage
        self.timed_out = timed_out
        """A time-out, rather than a broken connection: 504 instead of 502."""


@dataclass(frozen=True, slots=True)
class UpstreamTimeouts:
    connect_s: float = 2.0
    first_byte_s: float = 120.0
    """From the request's last byte to the answer's first body byte."""
    idle_s: float = 60.0
    """Between two reads of the answer."""


@dataclass(frozen=True, slots=True)
class UpstreamHead:
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    """Names in lower case. Framing fields (content-length, transfer-encoding, connection, keep-alive) are left out."""


class UpstreamResponse(Protocol):
    @property
    def head(self) -> UpstreamHead: ...

    @property
    def complete(self) -> bool:
        """The last body byte has arrived."""
        ...

    def take(self) -> bytes:
        """The body bytes that are here now; b"" if none. With `complete`, a small answer needs no waiting at all."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """Body bytes as they arrive. Raises UpstreamError (stage body) if the backend breaks off or falls silent."""
        ...

    async def close(self) -> None:
        """Give the connection back if the answer was read to its end, else break it: the backend then aborts the request.

        Idempotent.
        """
        ...


class UpstreamClient(Protocol):
    async def send(
        self,
        backend: BackendSpec,
        method: str,
        path: str,
        headers: Sequence[tuple[bytes, bytes]],
        body: Sequence[Buffer],
        timeouts: UpstreamTimeouts,
    ) -> UpstreamResponse:
        """Returns once the answer's head AND its first body byte (or its end) are there. The parts of `body` are sent
        one after the other, uncopied: they must not change before the answer is there. `host` and `content-length` are added,
        everything else (authorization, content-type) is the caller's. Raises UpstreamError; before the first byte nothing
        was shown to the client, so the caller may retry elsewhere. Cancelling it breaks the connection."""
        ...

    async def aclose(self) -> None: ...
