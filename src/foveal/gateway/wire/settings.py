"""What the operator may set about sockets. Sizes in bytes, times in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from foveal.core.errors import ConfigurationError
from foveal.gateway.wire.budget import split_budget

__all__ = ["WireConfig"]

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class WireConfig:
    """Limits of the listening side. Raises ConfigurationError."""

    max_head_bytes: int = 32 << 10
    """Request line and header fields together; more is 431."""
    max_headers: int = 100
    max_body_bytes: int = 64 * _MIB
    """Of one request to a hot route; more is 413, before a byte of it is read."""
    max_app_body_bytes: int = _MIB
    """Of one request to any other route."""
    max_bytes_in_flight: int = 1024 * _MIB
    """Bodies of all requests being read or served. Beyond it a request waits unread. A sixteenth is kept for small bodies."""
    budget_wait_s: float = 2.0
    """How long it waits before it gets a 503."""
    max_connections: int = 8192
    max_pipelined_bytes: int = 64 << 10
    """What a client may send ahead while its request is being served; beyond it the socket is not read."""
    head_s: float = 10.0
    """From the first byte of a head to its last: ends slow-loris clients (408)."""
    body_s: float = 30.0
    """In each such period a body must come to its end, or grow by `min_body_rate` bytes a second (408)."""
    min_body_rate: int = 16 << 10
    keep_alive_s: float = 75.0
    """How long an idle connection is kept."""
    send_stall_s: float = 60.0
    """A client that reads nothing for so long while there is data for it is cut off."""
    linger_s: float = 2.0
    """After a refusal the rest of the body is read and dropped for so long, so that the client gets to see the refusal."""
    backlog: int = 2048

    def __post_init__(self) -> None:
        for name in (
            "max_head_bytes",
            "max_headers",
            "max_body_bytes",
            "max_app_body_bytes",
            "max_bytes_in_flight",
            "max_connections",
            "max_pipelined_bytes",
            "head_s",
            "body_s",
            "min_body_rate",
            "keep_alive_s",
            "send_stall_s",
            "backlog",
        ):
            if getattr(self, name) <= 0:
                raise ConfigurationError(
                    f"wire.{name} is {getattr(self, name)}, it must be above 0; leave it out for the default"
                )
        if self.max_body_bytes > split_budget(self.max_bytes_in_flight)[0]:
            raise ConfigurationError(
                f"wire.max_body_bytes is {self.max_body_bytes}, above 15/16 of max_bytes_in_flight "
                f"({self.max_bytes_in_flight}): such a body could never be admitted; raise the second or lower the first"
            )
