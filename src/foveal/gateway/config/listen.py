"""Where the gateway listens, and what it accepts before it has read a body."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from foveal.gateway.config.fields import ByteSize, Port, PositiveCount, Seconds

__all__ = ["ListenConfig", "TlsConfig"]

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    certificate: Path
    """PEM file with the certificate and its chain."""
    key: Path
    """PEM file with the private key, readable by the gateway only."""
    client_ca: Path | None = None
    """PEM file: clients must show a certificate that it signed (mutual TLS)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenConfig:
    """Limits hold before authentication: they protect the process."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all."""
    port: Port = 8080
    """0 takes a free one."""
    tls: TlsConfig | None = None
    """Absent: plain HTTP, for a proxy in front or a private network."""
    max_connections: PositiveCount = 10_000
    """Client connections at the same time; more are closed at once."""
    max_body_bytes: ByteSize = 64 * MIB
    """Of one request. A larger one gets 413 before it is read."""
    max_bytes_in_flight: ByteSize = 512 * MIB
    """Bodies of all requests together. Beyond it reading pauses, then new requests get 503."""
    body_room_wait_s: Seconds = 2.0
    """How long a request waits for room in `max_bytes_in_flight` before its 503."""
    head_timeout_s: Seconds = 10.0
    """From the first byte of a request to the end of its headers."""
    body_timeout_s: Seconds = 60.0
    """From the headers to the complete body."""
    keep_alive_s: Seconds = 75.0
    """Idle connections are closed after this; longer than load balancers keep theirs (60 s)."""
    write_timeout_s: Seconds = 60.0
    """How long a client may read nothing of its answer before it is given up."""
    drain_grace_s: Seconds = 30.0
    """How long requests in flight may take to finish after SIGTERM."""
