"""What /live, /ready, /health and /version answer."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Health", "ServerStatus", "Status", "Version"]

ServerStatus = Literal["live", "ready", "loading", "draining"]


class Status(msgspec.Struct):
    """`loading` also stands for an engine that is being restarted."""

    status: ServerStatus


class Version(msgspec.Struct):
    version: str


class Health(msgspec.Struct):
    """Everything a person looks at first. Bytes and counts now; `uptime_s` in seconds."""

    status: ServerStatus
    version: str
    uptime_s: float
    model: str | None
    requests_in_flight: int
    body_bytes_in_flight: int
    requests_running: int
    requests_waiting: int
    kv_cache_usage_perc: float
    """0 to 1, as vLLM's metric of this name."""
