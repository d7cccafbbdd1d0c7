"""The memory layer against a model that does the same by brute force."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from foveal.gateway.caching.cached_answer import CachedAnswer
from foveal.gateway.caching.memory_cache import MemoryCache

BUDGET, TTL_S, SHARE = 10_000, 100.0, 0.5
TENANTS = ("a", "b", "c")


def answer(tenant: str, size: int, stored_at: float = 0.0) -> CachedAnswer:
    return CachedAnswer(tenant, b"x" * size, b"application/json", stored_at)


class MemoryCacheMachine(RuleBasedStateMachine):
    """The model is a list in order of use."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = MemoryCache(BUDGET, TTL_S, SHARE)
        self.model: list[tuple[bytes, CachedAnswer]] = []
        self.now = 0.0

    @rule(seconds=st.floats(0.0, 60.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(tenant=st.sampled_from(TENANTS), name=st.integers(0, 8), size=st.integers(0, 6000))
    def put(self, tenant: str, name: int, size: int) -> None:
        key, new = b"%s %d" % (tenant.encode(), name), answer(tenant, size, self.now)
        fits = new.num_bytes <= BUDGET * SHARE
        assert self.cache.put(key, new) is fits
        if not fits:
            return
        self.model = [(k, a) for k, a in self.model if k != key] + [(key, new)]
        while self.size(tenant) > BUDGET * SHARE:
            self.model.remove(next(item for item in self.model if item[1].tenant == tenant))
        while self.size() > BUDGET:
            del self.model[0]

    @rule(owner=st.sampled_from(TENANTS), name=st.integers(0, 8), asker=st.sampled_from(TENANTS))
    def get(self, owner: str, name: int, asker: str) -> None:
        key = b"%s %d" % (owner.encode(), name)
        item = next((item for item in self.model if item[0] == key), None)
        found = self.cache.get(key, asker, self.now)
        if item is None or asker != owner:
            assert found is None, "a tenant never sees another's answer, whatever key it presents"
        elif self.now - item[1].stored_at >= TTL_S:
            assert found is None
            self.model.remove(item)
        else:
            assert found is item[1]
            self.model.remove(item)
            self.model.append(item)

    @invariant()
    def sizes_agree(self) -> None:
        assert self.cache.num_bytes == self.size() <= BUDGET
        assert len(self.cache) == len(self.model)

    def size(self, tenant: str | None = None) -> int:
        return sum(a.num_bytes for _, a in self.model if tenant in (None, a.tenant))


TestMemoryCache = MemoryCacheMachine.TestCase
TestMemoryCache.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)


@given(st.lists(st.integers(0, 4000), min_size=1, max_size=60))
@settings(deadline=None)
def test_a_tenant_that_floods_the_cache_leaves_the_others_their_half(sizes: list[int]) -> None:
    cache = MemoryCache(BUDGET, TTL_S, SHARE)
    mine = answer("quiet", 1000)
    assert cache.put(b"mine", mine)
    for number, size in enumerate(sizes):
        cache.put(b"%d" % number, answer("loud", size))
    assert cache.get(b"mine", "quiet", 0.0) is mine


def test_a_smaller_budget_holds_at_once() -> None:
    cache = MemoryCache(BUDGET, TTL_S, 1.0)
    for number in range(8):
        cache.put(b"%d" % number, answer("a", 500))
    cache.configure(2500, TTL_S, 1.0)
    assert cache.num_bytes <= 2500
    assert cache.get(b"7", "a", 0.0) is not None
    assert len(cache) == 2
    cache.clear()
    assert (len(cache), cache.num_bytes) == (0, 0)


def test_over_its_share_a_tenant_loses_what_it_has_not_used_for_longest() -> None:
    cache = MemoryCache(BUDGET, TTL_S, SHARE)
    for key in (b"old", b"used", b"young"):
        cache.put(key, answer("a", 800))
    assert cache.get(b"old", "a", 0.0) is not None
    for number in range(2):
        cache.put(b"%d" % number, answer("a", 800))
    assert cache.get(b"old", "a", 0.0) is not None
    assert cache.get(b"used", "a", 0.0) is None
