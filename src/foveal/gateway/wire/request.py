"""One request on a connection."""

from __future__ import annotations

from collections.abc import Callable

from foveal.gateway.request.view import Endpoint
from foveal.gateway.wire.answer import Answer, AnswerSink
from foveal.gateway.wire.budget import ByteBudget
from foveal.gateway.wire.head import RequestHead

__all__ = ["HotRequest", "Request"]


class Request(Answer):
    """What was asked, and how to answer it."""

    __slots__ = ("body", "body_done_s", "budget", "head", "on_disconnect", "peer", "received_s", "reserved")

    def __init__(self, sink: AnswerSink, head: RequestHead, peer: str, received_s: float, keep_alive: bool) -> None:
        super().__init__(sink, head.method, head.minor, keep_alive)
        self.head = head
        self.peer = peer
        self.received_s = received_s
        self.body_done_s = received_s
        self.body = bytearray()
        self.budget: ByteBudget | None = None
        """Where its bytes are reserved."""
        self.reserved = 0
        """Bytes of the budget that this request holds."""
        self.on_disconnect: Callable[[], object] | None = None

    @property
    def path(self) -> bytes:
        return self.head.path

    @property
    def query(self) -> bytes:
        return self.head.query

    @property
    def headers(self) -> dict[bytes, bytes]:
        return self.head.headers


class HotRequest(Request):
    """Implements `Incoming`; see there."""

    __slots__ = ("endpoint",)

    def __init__(
        self, sink: AnswerSink, head: RequestHead, peer: str, received_s: float, keep_alive: bool, endpoint: Endpoint
    ) -> None:
        super().__init__(sink, head, peer, received_s, keep_alive)
        self.endpoint: Endpoint = endpoint
