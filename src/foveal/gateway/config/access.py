"""Who may use the gateway, and who may administer it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from foveal.core.errors import ConfigurationError
from foveal.gateway.config.fields import SECRET, ByteSize, PositiveCount, Seconds

__all__ = ["AdminConfig", "AuthConfig"]

_MIN_ADMIN_KEY_CHARS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthConfig:
    mode: Literal["auto", "keys", "off"] = "auto"
    """keys: every request needs an API key (`foveal keys create`). off: everybody is one tenant, `anonymous`.
    auto: keys where `tenants` are given, else off."""
    refresh_s: Seconds = 1.0
    """How often keys and quotas are compared with the state file: a revocation by another process is seen within it."""
    max_cached_keys: PositiveCount = 10_000
    """Verified keys kept in memory, as digests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminConfig:
    key: Annotated[str | None, SECRET] = field(default=None, repr=False)
    """For /admin; write it as ${NAME}. Absent: the admin API is off."""
    max_feedback_bytes: ByteSize = 64 * 1024
    """Of one /v1/feedback body."""

    def __post_init__(self) -> None:
        if self.key is not None and len(self.key) < _MIN_ADMIN_KEY_CHARS:
            raise ConfigurationError(
                f"admin.key is {len(self.key)} characters long; use at least {_MIN_ADMIN_KEY_CHARS} "
                "(openssl rand -base64 24)"
            )
