"""What is in flight, in requests and bytes, and who may come in. The one place that says 503 for load or draining."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from foveal.core.errors import OverloadedError
from foveal.core.in_flight import InFlight
from foveal.engine.server.config import ServerConfig

__all__ = ["Admission", "Lease"]


class Lease:
    """One admitted request and the bytes it holds. Grown as bytes arrive, released as a whole."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.num_bytes = 0

    def grow(self, num_bytes: int) -> None:
        """Raises OverloadedError, and changes nothing, if all requests together would hold too much."""
        self._admission.add_bytes(num_bytes)
        self.num_bytes += num_bytes


class Admission:
    """Lives on one event loop; no locks. Invariant: when idle, `num_requests` and `num_bytes` are 0."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self.in_flight = InFlight("server", config.retry_after_s)
        self.num_bytes = 0

    @property
    def num_requests(self) -> int:
        return self.in_flight.num_requests

    @contextmanager
    def enter(self) -> Iterator[Lease]:
        """Count one request until the block ends. Raises OverloadedError when draining or full."""
        limit = self._config.max_concurrent_requests
        # While draining, `enter` has the better reason.
        if self.num_requests >= limit and not self.in_flight.draining:
            raise OverloadedError(
                f"{self.num_requests} requests are in flight; the limit is {limit}. Retry shortly, or raise "
                "--max-concurrent-requests",
                retry_after_s=self._config.retry_after_s,
            )
        lease = Lease(self)
        task = self.in_flight.enter()
        try:
            yield lease
        finally:
            self.num_bytes -= lease.num_bytes
            self.in_flight.leave(task)

    def add_bytes(self, num_bytes: int) -> None:
        """Raises OverloadedError above the limit."""
        limit = self._config.max_body_bytes_in_flight
        if self.num_bytes + num_bytes > limit:
            raise OverloadedError(
                f"requests in flight hold {self.num_bytes:,} bytes and this one adds {num_bytes:,}; the limit is {limit:,}. "
                "Retry shortly, or send smaller images",
                retry_after_s=self._config.retry_after_s,
            )
        self.num_bytes += num_bytes
