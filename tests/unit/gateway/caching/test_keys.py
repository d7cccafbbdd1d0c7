"""What may be cached, and under which name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from foveal.core.priority import Priority
from foveal.gateway.caching.cache_key import cache_key, flight_key, model_generation
from foveal.gateway.caching.determinism import CacheUse, cache_use, is_deterministic
from foveal.gateway.config.load import parse_config
from foveal.gateway.request.read_view import read_view
from foveal.gateway.request.view import ImageRef, RequestView
from foveal.gateway.tenancy.tenant import Tenant

ACME, OTHER = Tenant("acme"), Tenant("other")
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAADCAYAAAC56t6BAAAAAElFTkSuQmCC"


def body_of(**fields: Any) -> bytearray:
    return bytearray(json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}).encode())


def with_image(payload: str) -> bytearray:
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{payload}"}}
    return body_of(messages=[{"role": "user", "content": [part]}], temperature=0)


def view_of(body: bytearray) -> RequestView:
    return read_view(body, {}, "chat")


def key_of(body: bytearray, tenant: Tenant = ACME, generation: bytes = b"") -> bytes:
    return cache_key(view_of(body), body, tenant, generation)


def bare_view(**fields: Any) -> RequestView:
    return RequestView("chat", "m", 0, 0, False, 10, 2, **{"temperature": 0.0, **fields})


@pytest.mark.parametrize(
    ("fields", "deterministic"),
    [
        ({"temperature": 0}, True),
        ({"temperature": 0.0, "stream": True}, True),
        ({"seed": 7}, True),
        ({"seed": 7, "temperature": 1.0}, True),
        ({}, False),
        ({"temperature": 0.01}, False),
    ],
)
def test_temperature_zero_or_a_seed_make_an_answer_repeatable(fields: dict[str, Any], deterministic: bool) -> None:
    assert is_deterministic(view_of(body_of(**fields))) is deterministic


def test_what_stands_behind_a_url_counts_only_once_its_bytes_are_known() -> None:
    assert not is_deterministic(bare_view(images=(ImageRef("remote", 0, 5),)))
    assert is_deterministic(bare_view(images=(ImageRef("remote", 0, 5, digest=b"d" * 16),)))
    assert not is_deterministic(bare_view(other_urls=True))


@pytest.mark.parametrize(
    ("headers", "use"),
    [
        ({}, CacheUse(True, True)),
        ({b"cache-control": b"no-store"}, CacheUse(False, False)),
        ({b"cache-control": b"No-Cache"}, CacheUse(False, True)),
        ({b"cache-control": b"private, max-age=0"}, CacheUse(False, True)),
        ({b"cache-control": b"max-age=60"}, CacheUse(True, True)),
    ],
)
def test_clients_can_refuse_or_renew_cached_answers(headers: Mapping[bytes, bytes], use: CacheUse) -> None:
    assert cache_use(bare_view(), headers) == use
    assert cache_use(bare_view(temperature=None), headers) == CacheUse(False, False)


def test_equal_requests_of_one_tenant_have_one_key() -> None:
    assert key_of(body_of(seed=1)) == key_of(body_of(seed=1))


@given(st.text(min_size=1), st.text(min_size=1), st.binary(max_size=8), st.binary(max_size=8))
@example("a", "ab", b"c", b"bc")
@settings(deadline=None)
def test_no_two_tenants_or_generations_share_a_key(a: str, b: str, first: bytes, second: bytes) -> None:
    body = body_of(seed=1)
    keys = {
        (tenant, generation): key_of(body, Tenant(tenant), generation)
        for tenant in (a, b)
        for generation in (first, second)
    }
    assert len(set(keys.values())) == len(keys)


@given(st.dictionaries(st.sampled_from(["seed", "max_tokens", "top_k", "cache_salt", "user"]), st.integers(1, 3)))
@settings(deadline=None)
def test_different_requests_have_different_keys(fields: dict[str, Any]) -> None:
    fields = {name: str(value) if name in ("cache_salt", "user") else value for name, value in fields.items()}
    plain = body_of(temperature=0)
    other = body_of(temperature=0, **fields)
    assert (key_of(plain) == key_of(other)) == (plain == other)


def test_the_image_is_in_the_key() -> None:
    other = PNG.replace("AIAAAAD", "AIAAAAE", 1)
    assert other != PNG
    assert key_of(with_image(PNG)) != key_of(with_image(other))


def test_a_fetched_image_is_in_the_key_by_its_bytes_not_its_url() -> None:
    views = [bare_view(images=(ImageRef("remote", 0, 5, digest=digest * 16),)) for digest in (b"a", b"b")]
    keys = [cache_key(view, b"same body", ACME) for view in views]
    assert keys[0] != keys[1]


def test_priority_is_not_part_of_the_answer() -> None:
    bodies = [body_of(priority=priority, seed=1) for priority in (0, 1)]
    assert key_of(bodies[0]) == key_of(bodies[1])
    assert flight_key(b"k", Priority.P0) != flight_key(b"k", Priority.P2), "but requests are joined within a class only"


def test_the_place_of_a_cut_counts() -> None:
    body = b"aXXb"
    one = cache_key(bare_view(priority_start=1, priority_end=2), body, ACME)
    other = cache_key(bare_view(priority_start=2, priority_end=3), body, ACME)
    assert one != other


def test_the_generation_changes_with_what_may_answer_and_not_with_its_share() -> None:
    def generation(versions: str) -> bytes:
        return model_generation([parse_config(f"models: {{m: {{versions: {versions}}}}}").models["m"]])

    base = generation("{1: {weight: 90, backends: [http://h:1]}, 2: {weight: 10, backends: [http://h:2]}}")
    assert base == generation("{1: {weight: 50, backends: [http://h:3]}, 2: {weight: 50, backends: [http://h:2]}}")
    assert base != generation("{1: {weight: 90, backends: [http://h:1]}, 2: {weight: 0, backends: [http://h:2]}}")
    assert base != generation("{1: {backends: [{url: http://h:1, served_name: x}]}, 2: {backends: [http://h:2]}}")
