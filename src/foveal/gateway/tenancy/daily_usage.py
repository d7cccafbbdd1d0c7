"""Requests and tokens per tenant and UTC day. Counted in memory, written behind, shared by all processes on one state file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import structlog

from foveal.core.errors import RateLimitedError
from foveal.gateway.state.database import StateDatabase
from foveal.gateway.tenancy.tenant import Tenant

__all__ = ["DailyCount", "DailyUsage"]

_DAY_S = 86_400
_KEPT_DAYS = 400
_log = structlog.get_logger(__name__)


class DailyCount:
    """One tenant's day: what the file had at the last look, and what this process has not written yet."""

    __slots__ = ("new_requests", "new_tokens", "requests", "tokens")

    def __init__(self) -> None:
        self.requests = self.tokens = 0
        self.new_requests = self.new_tokens = 0


class DailyUsage:
    """`wall_s` is seconds since 1970 (UTC). Belongs to one event loop; a crash loses what came after the last `flush`."""

    def __init__(self, database: StateDatabase, wall_s: Callable[[], float]) -> None:
        self._database = database
        self._wall_s = wall_s
        self._counts: dict[tuple[str, int], DailyCount] = {}

    def today(self) -> int:
        """Days since 1970-01-01."""
        return int(self._wall_s() // _DAY_S)

    def used(self, tenant_id: str, day: int) -> tuple[int, int]:
        """Requests and tokens, as far as this process knows."""
        count = self._counts.get((tenant_id, day))
        return (count.requests + count.new_requests, count.tokens + count.new_tokens) if count else (0, 0)

    def check(self, tenant: Tenant, day: int, *, requests: int = 0, tokens: int = 0) -> None:
        """Raises RateLimitedError if so many more are over a day's quota."""
        limits = tenant.limits
        if limits.tokens_per_day is None and limits.requests_per_day is None:
            return
        used_requests, used_tokens = self.used(tenant.id, day)
        for name, used, cost, limit in (
            ("daily_requests", used_requests, requests, limits.requests_per_day),
            ("daily_tokens", used_tokens, tokens, limits.tokens_per_day),
        ):
            if cost and limit is not None and used + cost > limit:
                unit = name.removeprefix("daily_")
                raise RateLimitedError(
                    f"{used:,} {unit} were used today and this request needs {cost:,}; the tenant's quota is {limit:,} a day. "
                    "It begins anew at 00:00 UTC",
                    limit=name,
                    retry_after_s=(day + 1) * _DAY_S - self._wall_s(),
                )

    def count(self, tenant_id: str, day: int) -> DailyCount:
        """To add to: `new_requests` and `new_tokens`, which may also be corrected downwards."""
        count = self._counts.get((tenant_id, day))
        if count is None:
            count = self._counts[tenant_id, day] = DailyCount()
        return count

    async def flush(self) -> None:
        """Adds what is new to the file and takes over the totals of all processes. What cannot be written is kept."""
        today = self.today()
        new = {
            key: (count.new_requests, count.new_tokens)
            for key, count in self._counts.items()
            if count.new_requests or count.new_tokens
        }
        for key, (requests, tokens) in new.items():
            # Moved over at once, so that `used` never dips while the write is under way.
            count = self._counts[key]
            count.requests += requests
            count.tokens += tokens
            count.new_requests = count.new_tokens = 0
        try:
            totals = await self._database.run(lambda connection: _write(connection, new, today))
        except Exception as error:  # whatever it is, it must not cost all tenants their counts
            _log.error("daily usage could not be written; it is kept", error=str(error))
            for key, (requests, tokens) in new.items():
                count = self._counts[key]
                count.requests -= requests
                count.tokens -= tokens
                count.new_requests += requests
                count.new_tokens += tokens
            return
        for key, (requests, tokens) in totals.items():
            count = self._counts.setdefault(key, DailyCount())
            count.requests, count.tokens = requests, tokens
        for key in [key for key, count in self._counts.items() if key[1] < today - 1 and not count.new_tokens]:
            del self._counts[key]


def _write(
    connection: sqlite3.Connection, new: dict[tuple[str, int], tuple[int, int]], today: int
) -> dict[tuple[str, int], tuple[int, int]]:
    """Today's totals of every tenant, after adding."""
    connection.executemany(
        "INSERT INTO daily_usage (tenant, day, requests, tokens) VALUES (?, ?, ?, ?) ON CONFLICT (tenant, day) DO UPDATE SET "
        "requests = requests + excluded.requests, tokens = tokens + excluded.tokens",
        [(tenant, day, requests, tokens) for (tenant, day), (requests, tokens) in new.items()],
    )
    connection.execute("DELETE FROM daily_usage WHERE day < ?", (today - _KEPT_DAYS,))
    rows = connection.execute("SELECT tenant, day, requests, tokens FROM daily_usage WHERE day >= ?", (today - 1,))
    return {(tenant, day): (requests, tokens) for tenant, day, requests, tokens in rows}
