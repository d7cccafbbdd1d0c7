"""How many tenants are active."""

from __future__ import annotations

__all__ = ["ActiveTenants"]

WINDOW_S = 300.0


class ActiveTenants:
    """Tenants with a request within the last five minutes. Seconds of one clock throughout."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self.last_s: dict[str, float] = {}
        """Tenant -> when its last request ended. Tenants are known ones (authenticated), so it is bounded by them."""

    def count(self, now_s: float) -> int:
        """Forgets those whose window has passed."""
        limit_s = now_s - self._window_s
        for tenant in [tenant for tenant, last_s in self.last_s.items() if last_s < limit_s]:
            del self.last_s[tenant]
        return len(self.last_s) - ("" in self.last_s)
