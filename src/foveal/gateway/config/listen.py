"""Where the gateway listens, and what it accepts before it has read a body."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from foveal.gateway.config.fields import Port, Seconds
from foveal.gateway.wire.settings import WireConfig

__all__ = ["ListenConfig", "TlsConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    certificate: Path
    """PEM file with the certificate and its chain."""
    key: Path
    """PEM file with the private key, readable by the gateway only."""
    client_ca: Path | None = None
    """PEM file: clients must show a certificate that it signed (mutual TLS)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenConfig(WireConfig):
    """Limits hold before authentication: they protect the process."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all."""
    port: Port = 8080
    """0 takes a free one."""
    tls: TlsConfig | None = None
    """Absent: plain HTTP, for a proxy in front or a private network."""
    drain_grace_s: Seconds = 30.0
    """How long requests in flight may take to finish after SIGTERM."""
