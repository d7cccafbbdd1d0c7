from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from foveal.core.priority import Priority
from foveal.gateway.backends.backend import BackendState
from foveal.gateway.backends.pool import BackendPool, Lease
from foveal.gateway.queueing.config import HeadroomConfig
from foveal.gateway.resilience.config import BreakerConfig, HealthConfig, OutlierConfig
from foveal.gateway.resilience.outcome import Outcome
from support.gateway_tickets import spec

P0, P1, P2 = Priority
TRUSTED = HealthConfig(interval_s=0, breaker=BreakerConfig(consecutive_failures=1, open_s=5.0), slow_start_s=10.0)
NO_RESERVE = HeadroomConfig(max_fraction=0.0)


def pool_of(*names: str, slots: int = 4, urgent_slots: int = 0, headroom: HeadroomConfig = NO_RESERVE) -> BackendPool:
    pool = BackendPool(TRUSTED, headroom)
    pool.update([spec(name, max_in_flight=slots, urgent_slots=urgent_slots) for name in names], 0.0)
    return pool


def ids(pool: BackendPool, priority: Priority = P1, now_s: float = 0.0, excluded: str = "") -> str:
    return "".join(load.spec.id for load in pool.candidates("vlm", priority, now_s, frozenset(excluded)))


def test_a_full_backend_is_no_candidate() -> None:
    pool = pool_of("a", "b", slots=1)
    lease = pool.acquire("a", P1, 100.0, 0.0)
    assert ids(pool) == "b"
    lease.release(Outcome.SUCCESS, 1.0)
    assert ids(pool) == "ab"


def test_loads_add_up_prices() -> None:
    pool = pool_of("a")
    first = pool.acquire("a", P1, 100.0, 0.0)
    pool.acquire("a", P1, 50.0, 0.0)
    assert [(load.in_flight, load.outstanding_ms) for load in pool.loads(0.0)] == [(2, 150.0)]
    first.release(Outcome.SUCCESS, 1.0)
    assert [(load.in_flight, load.outstanding_ms) for load in pool.loads(0.0)] == [(1, 50.0)]


def test_a_second_release_changes_nothing() -> None:
    pool = pool_of("a")
    lease = pool.acquire("a", P1, 100.0, 0.0)
    lease.release(Outcome.SUCCESS, 1.0)
    lease.release(Outcome.BROKEN, 2.0)
    assert pool.num_in_flight == 0
    assert ids(pool, now_s=2.0) == "a"


def test_slots_are_kept_free_for_urgent_requests_over_all_backends() -> None:
    pool = pool_of("a", "b", slots=4, headroom=HeadroomConfig())
    for name in "aaaabbb":
        pool.acquire(name, P2, 100.0, 0.0)
    assert ids(pool, P2) == ""
    assert ids(pool, P0) == "b"
    assert pool.worst_admissible("vlm", 0.0) is P0


def test_urgent_requests_may_go_above_the_cap_where_the_operator_allows() -> None:
    pool = pool_of("a", slots=2, urgent_slots=1)
    pool.acquire("a", P2, 100.0, 0.0)
    pool.acquire("a", P2, 100.0, 0.0)
    assert (ids(pool, P1), ids(pool, P0)) == ("", "a")
    pool.acquire("a", P0, 100.0, 0.0)
    assert ids(pool, P0) == ""
    assert pool.worst_admissible("vlm", 0.0) is None


def test_a_failing_backend_is_left_out_and_returns_slowly() -> None:
    pool = pool_of("a", "b", slots=10)
    pool.acquire("a", P1, 100.0, 0.0).release(Outcome.BROKEN, 1.0)
    assert ids(pool, now_s=1.0) == "b"
    assert pool.next_change_s("vlm", 1.0) == 6.0
    assert ids(pool, now_s=6.0) == "ab"
    trial = pool.acquire("a", P1, 100.0, 6.0)
    assert ids(pool, now_s=6.0) == "b"  # one at a time
    trial.release(Outcome.SUCCESS, 7.0)
    pool.acquire("a", P1, 100.0, 7.0).release(Outcome.SUCCESS, 7.0)
    share = next(load.share for load in pool.loads(12.0) if load.spec.id == "a")
    assert 0.4 < share < 0.7
    assert {load.state for load in pool.loads(17.0)} == {BackendState.UP}


def test_urgent_requests_do_not_try_out_a_backend_that_just_failed() -> None:
    pool = pool_of("a", "b")
    pool.acquire("a", P1, 100.0, 0.0).release(Outcome.BROKEN, 1.0)
    assert (ids(pool, P0, 6.0), ids(pool, P1, 6.0)) == ("b", "ab")


def test_excluded_backends_are_taken_rather_than_none() -> None:
    pool = pool_of("a", "b")
    assert ids(pool, excluded="a") == "b"
    assert ids(pool, excluded="ab") == "ab"


def test_a_removed_backend_finishes_what_it_has() -> None:
    pool = pool_of("a", "b")
    lease = pool.acquire("a", P1, 100.0, 0.0)
    pool.update([spec("b")], 1.0)
    assert ids(pool) == "b"
    assert {load.spec.id: load.state for load in pool.loads(1.0)} == {"a": BackendState.DRAINING, "b": BackendState.UP}
    assert pool.num_in_flight == 1
    lease.release(Outcome.SUCCESS, 2.0)
    assert [load.spec.id for load in pool.loads(2.0)] == ["b"]


def test_a_reload_keeps_health_and_counts_of_those_that_stay() -> None:
    pool = pool_of("a", "b", slots=2)
    pool.acquire("a", P1, 100.0, 0.0)
    pool.acquire("b", P1, 100.0, 0.0).release(Outcome.BROKEN, 0.0)
    pool.update([spec("a", max_in_flight=1), spec("b"), spec("c")], 1.0)
    assert ids(pool, now_s=1.0) == "c"


def test_another_url_is_another_server() -> None:
    pool = pool_of("a", slots=1)
    lease = pool.acquire("a", P1, 100.0, 0.0)
    pool.update([spec("a", port=9000, max_in_flight=1)], 1.0)
    assert ids(pool, now_s=1.0) == "a"
    lease.release(Outcome.BROKEN, 2.0)  # the old server's failure is not held against the new one
    assert ids(pool, now_s=2.0) == "a"


def test_two_backends_of_one_id_are_refused_and_nothing_changes() -> None:
    pool = pool_of("a")
    with pytest.raises(ValueError, match="two backends have the id b"):
        pool.update([spec("b"), spec("b", port=1)], 1.0)
    assert ids(pool) == "a"


def test_a_version_without_weight_gets_nothing() -> None:
    pool = BackendPool(TRUSTED, NO_RESERVE)
    pool.update([spec("a", version="1"), spec("b", version="2")], 0.0)
    pool.set_weights("vlm", {"1": 1.0, "2": 0.0})
    assert ids(pool) == "a"
    pool.set_weights("vlm", {"1": 9.0, "2": 1.0})
    assert [(load.spec.id, load.version_weight) for load in pool.candidates("vlm", P1, 0.0)] == [("a", 9.0), ("b", 1.0)]
    with pytest.raises(ValueError, match="at least 0"):
        pool.set_weights("vlm", {"1": -1.0})


def test_a_slow_backend_among_peers_is_ejected_for_a_while() -> None:
    health = HealthConfig(interval_s=0, outlier=OutlierConfig(min_requests=5, slowness=3.0, eject_s=30.0))
    pool = BackendPool(health, NO_RESERVE)
    pool.update([spec(name) for name in "abc"], 0.0)
    for step in range(20):
        for name in "abc":
            lease = pool.acquire(name, P1, 100.0, float(step))
            lease.release(Outcome.SUCCESS, float(step), first_byte_s=1.0 if name == "c" else 0.1)
    assert ids(pool, now_s=20.0) == "ab"
    assert ids(pool, now_s=60.0) == "abc"


def test_everybody_hears_of_a_slot_or_backend_that_came_back() -> None:
    pool = pool_of("a")
    heard: list[str] = []
    pool.on_change = heard.append
    pool.acquire("a", P1, 100.0, 0.0).release(Outcome.SUCCESS, 1.0)
    pool.probed(spec("a"), True, 2.0)
    pool.probed(spec("unknown"), True, 2.0)
    pool.probed(spec("a", port=1), True, 2.0)
    assert heard == ["vlm", "vlm"]


def test_a_reload_of_settings_keeps_what_is_known() -> None:
    pool = pool_of("a", "b")
    pool.acquire("a", P1, 100.0, 0.0).release(Outcome.BROKEN, 1.0)
    patient = HealthConfig(interval_s=0, breaker=BreakerConfig(consecutive_failures=3, open_s=20.0))
    pool.reload(patient, HeadroomConfig())
    assert ids(pool, now_s=20.0) == "b"
    assert ids(pool, now_s=21.0) == "ab"
    for _ in range(2):
        pool.acquire("b", P1, 100.0, 21.0).release(Outcome.BROKEN, 21.0)
    assert ids(pool, now_s=21.0) == "ab"
    assert pool.reserved_slots("vlm", 21.0) >= 1


def test_an_unknown_model_has_nothing() -> None:
    pool = pool_of("a")
    assert pool.candidates("other", P1, 0.0) == ()
    assert pool.worst_admissible("other", 0.0) is None
    assert not pool.is_available("other", 0.0)


class PoolModel(RuleBasedStateMachine):
    """Whatever happens, caps and reservations hold, and the counts are those of a plain list of leases."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.pool = BackendPool(
            HealthConfig(breaker=BreakerConfig(consecutive_failures=2, open_s=1.0, max_open_s=4.0)), HeadroomConfig()
        )
        self.leases: list[Lease] = []
        self.caps: dict[str, tuple[int, int]] = {}
        self.above: set[str] = set()
        """Had more than their cap when the cap was lowered."""

    @rule(seconds=st.floats(0.0, 8.0))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(caps=st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(1, 6), st.integers(0, 2)), max_size=4))
    def reload(self, caps: dict[str, tuple[int, int]]) -> None:
        self.caps = caps
        self.pool.update(
            [spec(name, max_in_flight=cap, urgent_slots=extra) for name, (cap, extra) in caps.items()], self.now_s
        )

    @rule(name=st.sampled_from("abcd"), ok=st.booleans())
    def check(self, name: str, ok: bool) -> None:
        self.pool.probed(spec(name), ok, self.now_s)

    @rule(priority=st.sampled_from(Priority), pick=st.integers(0, 9))
    def start(self, priority: Priority, pick: int) -> None:
        worst = self.pool.worst_admissible("vlm", self.now_s)
        candidates = self.pool.candidates("vlm", priority, self.now_s)
        assert bool(candidates) == (worst is not None and priority <= worst)
        if candidates:
            load = candidates[pick % len(candidates)]
            cap, extra = self.caps[load.spec.id]
            assert load.state.takes_requests
            assert load.in_flight < cap + (extra if priority is P0 else 0)
            self.leases.append(self.pool.acquire(load.spec.id, priority, 100.0, self.now_s))

    @rule(outcome=st.sampled_from(Outcome), pick=st.integers(0, 30))
    def finish(self, outcome: Outcome, pick: int) -> None:
        if self.leases:
            self.leases.pop(pick % len(self.leases)).release(outcome, self.now_s, first_byte_s=0.1)

    @invariant()
    def counts_agree(self) -> None:
        assert self.pool.num_in_flight == len(self.leases)
        assert sum(load.in_flight for load in self.pool.loads(self.now_s)) == len(self.leases)
        assert sum(load.outstanding_ms for load in self.pool.loads(self.now_s)) == pytest.approx(
            100.0 * len(self.leases)
        )

    @invariant()
    def a_fresh_look_sees_the_same(self) -> None:
        """What is cached between events is what would be computed now."""
        cached = self.pool.loads(self.now_s, "vlm")
        for group in self.pool._groups.values():
            group.touch()
        assert self.pool.loads(self.now_s, "vlm") == cached or any(
            load.state is BackendState.RETURNING for load in cached
        )


PoolModel.TestCase.settings = settings(max_examples=50, stateful_step_count=50, deadline=None)
TestPoolModel = PoolModel.TestCase
