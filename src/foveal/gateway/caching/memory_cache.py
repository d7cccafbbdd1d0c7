"""Answers in memory: least recently used go first, within a byte budget and a share per tenant."""

from __future__ import annotations

from collections import OrderedDict

from foveal.gateway.caching.cached_answer import CachedAnswer

__all__ = ["MemoryCache"]


class MemoryCache:
    """Pure; times are seconds since 1970. A tenant over its share loses its own answers, never another's."""

    def __init__(self, max_bytes: int, ttl_s: float, tenant_share: float = 1.0) -> None:
        self._answers: OrderedDict[bytes, CachedAnswer] = OrderedDict()
        # The same order, for each tenant: its oldest answer is found without a search.
        self._of_tenant: dict[str, OrderedDict[bytes, None]] = {}
        self._bytes_of_tenant: dict[str, int] = {}
        self.num_bytes = 0
        self.configure(max_bytes, ttl_s, tenant_share)

    def __len__(self) -> int:
        return len(self._answers)

    def configure(self, max_bytes: int, ttl_s: float, tenant_share: float) -> None:
        """New limits; what no longer fits goes."""
        self._max_bytes = max_bytes
        self._max_tenant_bytes = int(max_bytes * tenant_share)
        self._ttl_s = ttl_s
        for tenant in list(self._of_tenant):
            self._shrink_tenant(tenant)
        self._shrink()

    def get(self, key: bytes, tenant: str, now: float) -> CachedAnswer | None:
        """None also for another tenant's answer, though its key could not be the same."""
        answer = self._answers.get(key)
        if answer is None or answer.tenant != tenant:
            return None
        if answer.age_s(now) >= self._ttl_s:
            self.remove(key)
            return None
        self._answers.move_to_end(key)
        self._of_tenant[tenant].move_to_end(key)
        return answer

    def put(self, key: bytes, answer: CachedAnswer) -> bool:
        """False if it is larger than what its tenant may have."""
        if answer.num_bytes > self._max_tenant_bytes:
            return False
        self.remove(key)
        self._answers[key] = answer
        self._of_tenant.setdefault(answer.tenant, OrderedDict())[key] = None
        self._add(answer.tenant, answer.num_bytes)
        self._shrink_tenant(answer.tenant)
        self._shrink()
        return True

    def remove(self, key: bytes) -> None:
        answer = self._answers.pop(key, None)
        if answer is None:
            return
        keys = self._of_tenant[answer.tenant]
        del keys[key]
        self._add(answer.tenant, -answer.num_bytes)
        if not keys:
            del self._of_tenant[answer.tenant], self._bytes_of_tenant[answer.tenant]

    def clear(self) -> None:
        for key in list(self._answers):
            self.remove(key)

    def _add(self, tenant: str, num_bytes: int) -> None:
        self._bytes_of_tenant[tenant] = self._bytes_of_tenant.get(tenant, 0) + num_bytes
        self.num_bytes += num_bytes

    def _shrink_tenant(self, tenant: str) -> None:
        while self._bytes_of_tenant.get(tenant, 0) > self._max_tenant_bytes:
            self.remove(next(iter(self._of_tenant[tenant])))

    def _shrink(self) -> None:
        while self.num_bytes > self._max_bytes:
            self.remove(next(iter(self._answers)))
