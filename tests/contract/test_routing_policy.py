"""Every routing policy keeps the same promises."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.gateway.backends.backend import BackendLoad, BackendState
from foveal.gateway.routing.config import LengthClass, RoutingConfig
from foveal.gateway.routing.make_policy import make_policy
from support.gateway_tickets import price, request, spec

POLICIES = {
    "round_robin": RoutingConfig(policy="round_robin"),
    "least_loaded": RoutingConfig(policy="least_loaded"),
    "affinity": RoutingConfig(policy="affinity"),
    "affinity to images": RoutingConfig(policy="affinity", affinity_keys=("image",)),
    "length_classes": RoutingConfig(
        policy="length_classes",
        affinity_keys=(),
        length_classes=(LengthClass(1000, ("a", "b")), LengthClass(None, ("c", "gone"))),
    ),
}
policies = pytest.mark.parametrize("config", POLICIES.values(), ids=POLICIES.keys())

LOADS = st.lists(
    st.builds(
        lambda name, version, in_flight, outstanding_ms, share: BackendLoad(
            spec(name, version=version, max_in_flight=16),
            BackendState.UP if share == 1.0 else BackendState.RETURNING,
            in_flight,
            outstanding_ms if in_flight else 0.0,
            share,
            1.0 if version == "1" else 9.0,
        ),
        name=st.sampled_from("abcdefgh"),
        version=st.sampled_from(["1", "2"]),
        in_flight=st.integers(0, 15),
        outstanding_ms=st.integers(0, 10_000),
        share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    ),
    max_size=8,
    unique_by=lambda load: load.spec.id,
)
REQUESTS = st.builds(
    request,
    session_id=st.one_of(st.none(), st.text(max_size=8)),
    image=st.one_of(st.none(), st.binary(min_size=8, max_size=8)),
    prefix=st.one_of(st.just(b""), st.binary(min_size=16, max_size=16)),
)
PRICES = st.builds(price, cost_ms=st.integers(1, 10_000), prompt_tokens=st.integers(1, 5000))


@policies
@given(loads=LOADS, requests=st.lists(REQUESTS, min_size=1, max_size=5), price=PRICES)
def test_it_chooses_one_of_the_backends_or_none_if_there_is_none(config, loads, requests, price) -> None:  # type: ignore[no-untyped-def]
    policy = make_policy(config)
    for item in requests:
        chosen = policy.choose(item, price, loads)
        assert chosen in loads if loads else chosen is None


@policies
@given(loads=LOADS, item=REQUESTS, price=PRICES)
def test_it_never_changes_what_it_is_given(config, loads, item, price) -> None:  # type: ignore[no-untyped-def]
    before = copy.deepcopy(loads)
    make_policy(config).choose(item, price, loads)
    assert loads == before


@policies
@given(loads=LOADS, items=st.lists(REQUESTS, max_size=8), price=PRICES, random=st.randoms())
def test_the_order_of_the_backends_does_not_matter(config, loads, items, price, random) -> None:  # type: ignore[no-untyped-def]
    shuffled = random.sample(loads, len(loads))
    one, other = make_policy(config), make_policy(config)
    for item in items:
        assert one.choose(item, price, loads) == other.choose(item, price, shuffled)


@policies
@given(loads=LOADS, item=REQUESTS, price=PRICES)
def test_a_version_with_weight_zero_gets_nothing(config, loads, item, price) -> None:  # type: ignore[no-untyped-def]
    zeroed = [
        BackendLoad(load.spec, load.state, load.in_flight, load.outstanding_ms, load.share, 0.0)
        if load.spec.version == "2"
        else load
        for load in loads
    ]
    chosen = make_policy(config).choose(item, price, zeroed)
    if all(load.spec.version == "2" for load in loads):
        assert chosen is None
    else:
        assert chosen is not None
        assert chosen.spec.version == "1"


@policies
def test_equal_idle_backends_all_get_work(config) -> None:  # type: ignore[no-untyped-def]
    policy = make_policy(config)
    loads = [BackendLoad(spec(name, max_in_flight=16), BackendState.UP) for name in "abc"]
    chosen = set()
    for number in range(120):
        load = policy.choose(
            request(session_id=f"session {number}", image=number.to_bytes(8, "big")),
            price(prompt_tokens=500 + 1000 * (number % 2)),
            loads,
        )
        assert load is not None
        chosen.add(load.spec.id)
    assert chosen == set("abc")
