"""Deterministic requests: kept, joined, and never across tenants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from foveal.gateway.config.caches import CacheConfig
from foveal.gateway.config.telemetry import LoggingConfig
from foveal.gateway.tenancy.key_store import KeyStore
from foveal.gateway.tenancy.tenant import Tenant
from support.fake_backend import FakeBackend, fake_backend
from support.running_gateway import RunningGateway, ask, gateway_config, post, running_gateway, until


@pytest.fixture
async def backend() -> AsyncIterator[FakeBackend]:
    async with fake_backend("one") as backend:
        yield backend


async def get(session: aiohttp.ClientSession, **fields: Any) -> tuple[str, bytes]:
    """What the cache header says, and the body."""
    async with session.post("/v1/chat/completions", json=ask(**fields)) as response:
        assert response.status == 200
        return response.headers.get("X-Foveal-Cache", ""), await response.read()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_second_of_two_equal_deterministic_requests_is_answered_without_a_backend(
    backend: FakeBackend, stream: bool
) -> None:
    async with running_gateway(gateway_config([backend])) as running, aiohttp.ClientSession(running.url) as session:
        first = await get(session, temperature=0, stream=stream)
        second = await get(session, temperature=0, stream=stream)
        assert (first[0], second[0]) == ("", "hit")
        assert first[1] == second[1]
    assert len(backend.requests) == 1
    assert running.count("success") == 2


async def test_feedback_on_a_kept_answer_is_tied_to_who_gave_it(backend: FakeBackend, tmp_path: Path) -> None:
    config = gateway_config([backend], state=tmp_path / "state.db", cache=CacheConfig(disk_bytes=1 << 24))
    for expected in ("", "hit"):  # the second time from the disk, by another process
        async with running_gateway(config) as running, aiohttp.ClientSession(running.url) as session:
            async with session.post("/v1/chat/completions", json=ask(temperature=0)) as response:
                assert response.headers.get("X-Foveal-Cache", "") == expected
                request_id = response.headers["X-Request-Id"]
                await response.read()
            async with session.post("/v1/feedback", json={"request_id": request_id, "score": 1}) as response:
                assert (await response.json())["known"]


async def test_a_request_that_draws_at_random_is_asked_each_time(backend: FakeBackend) -> None:
    async with running_gateway(gateway_config([backend])) as running, aiohttp.ClientSession(running.url) as session:
        for _ in range(2):
            assert (await get(session, temperature=0.7))[0] == ""
    assert len(backend.requests) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_equal_requests_at_the_same_time_become_one(backend: FakeBackend, stream: bool) -> None:
    backend.hold.clear()
    async with running_gateway(gateway_config([backend])) as running, aiohttp.ClientSession(running.url) as session:
        asking = [asyncio.create_task(get(session, temperature=0, stream=stream)) for _ in range(5)]
        await until(lambda: running.gateway.in_flight.num_requests == 5)
        backend.hold.set()
        answers = await asyncio.gather(*asking)
        assert sorted(kind for kind, _ in answers) == ["", *["joined"] * 4]
        assert len({body for _, body in answers}) == 1
    assert len(backend.requests) == 1
    assert running.count("success") == 5


async def test_the_others_keep_their_answer_when_the_first_client_leaves(backend: FakeBackend) -> None:
    backend.hold.clear()
    async with running_gateway(gateway_config([backend])) as running, aiohttp.ClientSession(running.url) as other:
        async with aiohttp.ClientSession(running.url) as session:
            first = asyncio.create_task(get(session, temperature=0))
            await backend.until_received(1)
            second = asyncio.create_task(get(other, temperature=0))
            await until(lambda: running.gateway.in_flight.num_requests == 2)
            first.cancel()
        await until(lambda: running.gateway.in_flight.num_requests == 1)
        backend.hold.set()
        assert (await second)[0] == "joined"
    assert len(backend.requests) == 1
    assert (running.count("aborted"), running.count("success")) == (1, 1)


async def test_who_asked_first_pays_and_keeps_its_bytes_in_flight_though_it_left_before_the_answer(
    backend: FakeBackend,
) -> None:
    backend.hold.clear()
    async with running_gateway(gateway_config([backend])) as running, aiohttp.ClientSession(running.url) as other:
        gateway = running.gateway
        async with aiohttp.ClientSession(running.url) as session:
            first = asyncio.create_task(get(session, temperature=0, user="x" * 100_000))
            await backend.until_received(1)
            second = asyncio.create_task(get(other, temperature=0, user="x" * 100_000))
            await until(lambda: gateway.in_flight.num_requests == 2)
            first.cancel()
        await until(lambda: gateway.in_flight.num_requests == 1)
        assert gateway.body_bytes > 200_000
        backend.hold.set()
        await second
        await until(lambda: gateway.body_bytes == 0)
        daily = gateway.parts.tenancy.daily
        assert daily.used("anonymous", daily.today()) == (2, backend.usage["total_tokens"])


async def test_the_backend_is_freed_when_the_last_client_leaves(backend: FakeBackend) -> None:
    backend.hold.clear()
    async with running_gateway(gateway_config([backend])) as running:
        async with aiohttp.ClientSession(running.url) as session:
            asking = [asyncio.create_task(get(session, temperature=0)) for _ in range(2)]
            await backend.until_received(1)
            await until(lambda: running.gateway.in_flight.num_requests == 2)
            for task in asking:
                task.cancel()
        await until(lambda: backend.left == 1)
    assert running.count("aborted") == 2


async def test_a_broken_shared_stream_is_an_explicit_error_for_each_and_is_not_kept(backend: FakeBackend) -> None:
    backend.behaviours[0] = "dies_mid_stream"
    async with running_gateway(gateway_config([backend])) as running, aiohttp.ClientSession(running.url) as session:
        broken = await asyncio.gather(*[get(session, temperature=0, stream=True) for _ in range(3)])
        assert all(body.count(b'"code":"backend_failed"') == 1 for _, body in broken)
        kind, body = await get(session, temperature=0, stream=True)
        assert kind == ""
        assert body.endswith(b"data: [DONE]\n\n")
    assert (running.count("error"), running.count("success")) == (3, 1)


async def test_an_error_of_the_backend_is_not_kept(backend: FakeBackend) -> None:
    backend.behaviours = {0: "failing", 1: "failing", 2: "failing"}
    async with running_gateway(gateway_config([backend])) as running, aiohttp.ClientSession(running.url) as session:
        assert (await post(session, ask(temperature=0)))[0] == 500
        assert (await post(session, ask(temperature=0)))[0] == 200


async def test_a_cache_that_is_off_keeps_nothing(backend: FakeBackend) -> None:
    config = gateway_config([backend], cache=CacheConfig(enabled=False))
    async with running_gateway(config) as running, aiohttp.ClientSession(running.url) as session:
        for _ in range(2):
            assert (await get(session, temperature=0))[0] == ""
    assert len(backend.requests) == 2


async def test_tenants_never_see_each_other_s_answers_and_reach_the_backend_under_different_salts(
    backend: FakeBackend, tmp_path: Path
) -> None:
    config = gateway_config(
        [backend],
        state=tmp_path / "gateway.db",
        tenants={name: Tenant(name) for name in ("a", "b")},
        logging=LoggingConfig(access=False),
    )
    async with running_gateway(config) as running:
        keys = {name: await _key(running, name) for name in ("a", "b")}
        seen: dict[str, list[str]] = {}
        for name in ("a", "a", "b"):
            headers = {"Authorization": f"Bearer {keys[name]}"}
            async with aiohttp.ClientSession(running.url, headers=headers) as session:
                seen.setdefault(name, []).append((await get(session, temperature=0))[0])
        assert seen == {"a": ["", "hit"], "b": [""]}
        async with aiohttp.ClientSession(running.url) as session:
            for headers in ({}, {"Authorization": "Bearer fvl_wrong"}):
                async with session.post("/v1/chat/completions", json=ask(), headers=headers) as response:
                    assert response.status == 401
                    assert response.headers["WWW-Authenticate"] == "Bearer"
    salts = [request.body["cache_salt"] for request in backend.requests]
    assert len(set(salts)) == 2


async def _key(running: RunningGateway, tenant: str) -> str:
    tenancy = running.gateway.parts.tenancy
    new = await tenancy.database.run(lambda connection: KeyStore(connection).create(tenant, "test", 0.0))
    await tenancy.refresh()
    return new.text
