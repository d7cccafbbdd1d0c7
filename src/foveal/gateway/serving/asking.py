"""One attempt with its slot: whatever happens, the slot comes back exactly once and the attempt is counted exactly once."""

from __future__ import annotations

from typing import Protocol

from foveal.core.clock import Clock
from foveal.gateway.backends.pool import Lease
from foveal.gateway.resilience.outcome import Outcome
from foveal.gateway.serving.answer import Answer
from foveal.gateway.serving.call import Call
from foveal.gateway.serving.forwarder import Forwarder, failure_outcome
from foveal.gateway.serving.seats import Seats
from foveal.gateway.wire.upstream import UpstreamError

__all__ = ["Asking", "AttemptMetrics", "Opened"]


class AttemptMetrics(Protocol):
    def backend_finished(self, backend: str, result: str, first_byte_s: float | None = None) -> None: ...

    def count(self, name: str, *labels: str, by: float = 1.0) -> None: ...


class Opened:
    """An answer and the slot it holds."""

    def __init__(self, asking: Asking, answer: Answer, lease: Lease, first_byte_s: float) -> None:
        self._asking = asking
        self._closed = False
        self.answer = answer
        self.lease = lease
        self.first_byte_s = first_byte_s
        """From sending the request to the first byte (of a stream) or the whole (of any other answer)."""

    async def close(self, outcome: Outcome, result: str | None = None) -> None:
        """Give back connection and slot. Only the first call counts. `result` is the metric's word where `outcome` does
        not tell it."""
        if self._closed:
            return
        self._closed = True
        first_byte_s = self.first_byte_s if outcome is Outcome.SUCCESS else None
        try:
            await self.answer.response.close()
        finally:
            self._asking.finished(self.lease, outcome, result or _RESULTS[outcome], first_byte_s)


class Asking:
    def __init__(self, forwarder: Forwarder, seats: Seats, metrics: AttemptMetrics, clock: Clock) -> None:
        self._forwarder = forwarder
        self._seats = seats
        self._metrics = metrics
        self._clock = clock

    async def ask(self, call: Call, lease: Lease) -> Opened:
        """Takes over `lease`. Raises UpstreamError."""
        began_s = self._clock.now_s()
        try:
            answer = await self._forwarder.ask(call, lease.backend, began_s)
        except UpstreamError as error:
            self.finished(lease, failure_outcome(error), error.stage, None)
            raise
        except BaseException:
            self.finished(lease, Outcome.CLIENT_GONE, "cancelled", None)
            raise
        return Opened(self, answer, lease, self._clock.now_s() - began_s)

    def finished(self, lease: Lease, outcome: Outcome, result: str, first_byte_s: float | None) -> None:
        """Called by `Opened`."""
        self._seats.release(lease, outcome, first_byte_s)
        self._metrics.backend_finished(lease.backend.id, result, first_byte_s)


_RESULTS = {
    Outcome.SUCCESS: "ok",
    Outcome.CLIENT_ERROR: "client_error",
    Outcome.CLIENT_GONE: "cancelled",
    Outcome.SERVER_ERROR: "server_error",
    Outcome.OVERLOADED: "server_error",
    Outcome.CONNECT_FAILED: "connect",
    Outcome.TIMED_OUT: "first_byte",
    Outcome.BROKEN: "body",
    Outcome.BAD_ANSWER: "protocol",
}
