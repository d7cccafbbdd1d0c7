"""Who may use the gateway, and who may administer it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from foveal.gateway.config.fields import SECRET, ByteSize, PositiveCount, Range, Seconds

__all__ = ["AdminConfig", "AuthConfig"]

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthConfig:
    mode: Literal["auto", "keys", "off"] = "auto"
    """keys: every request needs an API key (`foveal keys create`). off: everybody is one tenant, `anonymous`.
    auto: keys where `tenants` are given, else off."""
    verified_ttl_s: Seconds = 60.0
    """How long a revocation made by another process may take to be seen."""
    max_cached_keys: PositiveCount = 10_000
    """Verified keys kept in memory (as digests)."""
    max_hash_per_s: Annotated[float, Range(above=0.0)] = 20.0
    """Slow hashes per second, over all clients. Only a key whose public part exists costs one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminConfig:
    key: Annotated[str | None, SECRET] = field(default=None, repr=False)
    """For /admin; write it as ${NAME}. Absent: the admin API is off."""
    max_feedback_bytes: ByteSize = 64 * 1024
    """Of one /v1/feedback body."""
