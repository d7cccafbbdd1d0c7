"""Everything that knows tenants, joined: keys, limits, quotas and feedback on one state file, kept fresh by one task."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping

import structlog

from foveal.core.errors import UnauthorizedError
from foveal.gateway.config.gateway import GatewayConfig
from foveal.gateway.state.database import StateDatabase
from foveal.gateway.state.schema import MIGRATIONS
from foveal.gateway.tenancy.admin_key import AdminKey
from foveal.gateway.tenancy.authenticator import Authenticator
from foveal.gateway.tenancy.daily_usage import DailyUsage
from foveal.gateway.tenancy.feedback import FeedbackStore
from foveal.gateway.tenancy.rate_limiter import RateLimiter
from foveal.gateway.tenancy.tenant import Tenant

__all__ = ["Tenancy"]

_NOTE_USE_S = 60.0
_log = structlog.get_logger(__name__)


class Tenancy:
    """`await open()` before the first request, `await close()` after the last. Belongs to one event loop.

    Raises ConfigurationError when the state file cannot be used.
    """

    def __init__(
        self,
        config: GatewayConfig,
        *,
        now_s: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._now_s = now_s
        self.database = StateDatabase(config.state, MIGRATIONS)
        self._authenticator = Authenticator(self.database, config.tenants, config.auth, now_s=now_s, wall_s=wall_s)
        self.daily = DailyUsage(self.database, wall_s)
        self.limiter = RateLimiter(self.daily)
        self.feedback = FeedbackStore(self.database)
        self.admin = AdminKey(config.admin.key)
        self._keeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Reads keys and today's usage, and starts to keep them fresh."""
        await self.refresh()
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="tenancy keeper")

    async def authenticate(self, headers: Mapping[bytes, bytes]) -> Tenant:
        """The sender of a request; `headers` by lower-case name. Raises UnauthorizedError."""
        if not self._config.keys_required:
            return self._config.anonymous
        return await self._authenticator.authenticate(headers)

    def refuse_early(self, headers: Mapping[bytes, bytes]) -> UnauthorizedError | None:
        """Before a body is read: the answer to a key that is missing, wrong or not known yet. None lets pass. Microseconds."""
        return self._authenticator.refuse_early(headers) if self._config.keys_required else None

    def reload(self, config: GatewayConfig) -> None:
        """New tenants, limits and admin key at once; requests in flight keep what they took. `state` cannot change."""
        self._config = config
        self._authenticator.replace(config.tenants, config.auth)
        self.admin = AdminKey(config.admin.key)

    async def refresh(self) -> None:
        """Exchanges keys and quotas with the state file now, e.g. after the admin API made a key."""
        await self._authenticator.refresh()
        await self.daily.flush()

    async def close(self) -> None:
        """Writes everything down. Idempotent."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        self._authenticator.note_use()
        await self.daily.flush()
        self._authenticator.close()
        await asyncio.to_thread(self.database.close)

    async def _keep(self) -> None:
        noted_at_s = self._now_s()
        while True:
            await asyncio.sleep(self._config.auth.refresh_s)
            try:
                await self.refresh()
            except Exception:  # a bug here must not end with keys that are never refreshed again
                _log.exception("tenancy could not be refreshed")
            if self._now_s() - noted_at_s >= _NOTE_USE_S:
                noted_at_s = self._now_s()
                self._authenticator.note_use()
