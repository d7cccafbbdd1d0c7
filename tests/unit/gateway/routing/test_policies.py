from __future__ import annotations

from collections import Counter

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from foveal.gateway.backends.backend import BackendLoad, BackendState
from foveal.gateway.routing.affinity import ALWAYS_FREE, Affinity
from foveal.gateway.routing.config import LengthClass, RoutingConfig
from foveal.gateway.routing.least_loaded import LeastLoaded
from foveal.gateway.routing.length_classes import LengthClasses
from foveal.gateway.routing.rendezvous import rank
from foveal.gateway.routing.round_robin import RoundRobin
from foveal.gateway.routing.version_split import VersionSplit
from support.gateway_tickets import price, request, spec


def load(name: str, in_flight: int = 0, cost_ms: float = 0.0, version: str = "1", weight: float = 1.0) -> BackendLoad:
    return BackendLoad(spec(name, version=version, max_in_flight=32), BackendState.UP, in_flight, cost_ms, 1.0, weight)


def fingerprint(number: int) -> bytes:
    return blake3(str(number).encode()).digest(8)


def test_round_robin_keeps_its_turn_when_a_backend_is_missing_for_a_while() -> None:
    policy = RoundRobin()
    everybody = [load(name) for name in "abc"]
    chosen = [
        policy.choose(request(), price(), backends).spec.id  # type: ignore[union-attr]
        for backends in (everybody, everybody, [everybody[0], everybody[1]], everybody, everybody)
    ]
    assert "".join(chosen) == "ababc"


def test_least_loaded_counts_cost_not_requests() -> None:
    chosen = LeastLoaded().choose(request(), price(), [load("many small", 9, 100.0), load("one large", 1, 5000.0)])
    assert chosen is not None
    assert chosen.spec.id == "many small"


def test_least_loaded_takes_turns_among_equals() -> None:
    policy = LeastLoaded()
    chosen = Counter(policy.choose(request(), price(), [load(n) for n in "abc"]).spec.id for _ in range(30))  # type: ignore[union-attr]
    assert set(chosen.values()) == {10}


def test_a_large_backend_gets_more() -> None:
    small = BackendLoad(spec("small", max_in_flight=4), BackendState.UP, 2, 200.0)
    large = BackendLoad(spec("large", max_in_flight=32), BackendState.UP, 8, 800.0)
    chosen = LeastLoaded().choose(request(), price(), [small, large])
    assert chosen is large


def test_the_same_picture_goes_to_the_same_backend() -> None:
    policy = Affinity(("image",), 1.25)
    backends = [load(name) for name in "abcd"]
    for number in range(50):
        chosen = {
            policy.choose(request(image=fingerprint(number), session_id=str(turn)), price(), backends).spec.id  # type: ignore[union-attr]
            for turn in range(5)
        }
        assert len(chosen) == 1


def test_a_session_comes_before_its_picture_where_the_keys_say_so() -> None:
    policy = Affinity(("session", "image"), 1.25)
    backends = [load(name) for name in "abcd"]
    chosen = {
        policy.choose(request(image=fingerprint(number), session_id="one"), price(), backends).spec.id  # type: ignore[union-attr]
        for number in range(50)
    }
    assert len(chosen) == 1


def test_a_backend_that_goes_moves_only_its_own_keys() -> None:
    policy = Affinity(("image",), 1.25)
    four = [load(name) for name in "abcd"]
    three = four[:3]
    for number in range(300):
        before = policy.choose(request(image=fingerprint(number)), price(), four)
        after = policy.choose(request(image=fingerprint(number)), price(), three)
        assert before is not None
        if before.spec.id != "d":
            assert after == before


def test_keys_are_spread_evenly() -> None:
    counts: Counter[str] = Counter()
    for number in range(4000):
        key = int.from_bytes(fingerprint(number), "little")
        counts[max("abcd", key=lambda name: rank(key, name))] += 1
    assert max(counts.values()) < 1.1 * min(counts.values())


def test_a_hot_picture_spills_to_always_the_same_second_backend() -> None:
    policy = Affinity(("image",), 1.25)
    home = policy.choose(request(image=fingerprint(1)), price(), [load(name) for name in "abcd"])
    assert home is not None
    hot = [load(name, 10, 1000.0) if name == home.spec.id else load(name) for name in "abcd"]
    second = {policy.choose(request(image=fingerprint(1)), price(), hot).spec.id for _ in range(10)}  # type: ignore[union-attr]
    assert len(second) == 1
    assert home.spec.id not in second


@given(
    st.lists(st.tuples(st.integers(0, 30), st.floats(0.0, 1e4)), min_size=2, max_size=8),
    st.integers(0, 1000),
    st.floats(1.01, 3.0),
)
def test_nobody_gets_a_request_who_has_far_more_than_the_mean(
    state: list[tuple[int, float]], number: int, factor: float
) -> None:
    backends = [load(f"b{index}", count, cost if count else 0.0) for index, (count, cost) in enumerate(state)]
    chosen = Affinity(("image",), factor).choose(request(image=fingerprint(number)), price(100.0), backends)
    assert chosen is not None
    mean_ms = (sum(item.outstanding_ms for item in backends) + 100.0) / len(backends)
    assert chosen.in_flight <= ALWAYS_FREE or chosen.outstanding_ms <= factor * mean_ms + 1e-6


def test_without_a_key_the_least_loaded_is_taken() -> None:
    chosen = Affinity(("image",), 1.25).choose(request(), price(), [load("busy", 1, 100.0), load("idle")])
    assert chosen is not None
    assert chosen.spec.id == "idle"


def test_short_requests_keep_to_their_backends_and_use_others_rather_than_wait() -> None:
    policy = LengthClasses((LengthClass(1000, ("short",)), LengthClass(None, ("long",))), LeastLoaded())
    both = [load("short", 9, 900.0), load("long")]
    assert policy.choose(request(), price(prompt_tokens=1000), both).spec.id == "short"  # type: ignore[union-attr]
    assert policy.choose(request(), price(prompt_tokens=1001), both).spec.id == "long"  # type: ignore[union-attr]
    assert policy.choose(request(), price(prompt_tokens=10), both[1:]).spec.id == "long"  # type: ignore[union-attr]


@given(st.integers(1, 99), st.integers(1, 300))
def test_versions_get_their_share_to_the_request(percent: int, num_requests: int) -> None:
    policy = VersionSplit(LeastLoaded())
    backends = [load("old", version="1", weight=100.0 - percent), load("new", version="2", weight=float(percent))]
    counts = Counter(policy.choose(request(), price(), backends).spec.version for _ in range(num_requests))  # type: ignore[union-attr]
    assert abs(counts["2"] - num_requests * percent / 100) <= 1


def test_a_session_stays_with_its_version_and_moves_only_towards_the_one_that_grows() -> None:
    policy = VersionSplit(LeastLoaded())
    versions: dict[str, list[str]] = {}
    for percent in (10, 30, 50, 70, 100):
        backends = [load("old", version="1", weight=100.0 - percent), load("new", version="2", weight=float(percent))]
        for number in range(200):
            chosen = policy.choose(request(session_id=str(number)), price(), backends)
            assert chosen is not None
            versions.setdefault(str(number), []).append(chosen.spec.version)
    assert all(seen == sorted(seen) for seen in versions.values())
    assert sum(seen[0] == "2" for seen in versions.values()) == pytest.approx(20, abs=12)


def test_a_version_without_room_leaves_its_requests_to_the_others() -> None:
    policy = VersionSplit(LeastLoaded())
    chosen = policy.choose(request(session_id="any"), price(), [load("old", version="1", weight=0.01)])
    assert chosen is not None


@pytest.mark.parametrize(
    "settings",
    [
        {"load_factor": 1.0},
        {"affinity_keys": ()},
        {"policy": "length_classes"},
        {"length_classes": (LengthClass(None, ()), LengthClass(5, ()))},
        {"length_classes": (LengthClass(9, ()), LengthClass(5, ()))},
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="routing"):
        RoutingConfig(**settings)  # type: ignore[arg-type]
