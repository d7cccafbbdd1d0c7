"""Fallback, smart routing, versions, hedges, classes and limits, end to end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from foveal.core.priority import Priority
from foveal.gateway.config.access import AdminConfig
from foveal.gateway.config.gateway import GatewayConfig
from foveal.gateway.config.listen import ListenConfig
from foveal.gateway.config.models import BackendConfig, ModelConfig, SmartRule, VersionConfig
from foveal.gateway.queueing.config import QueueConfig
from foveal.gateway.resilience.config import HedgeConfig
from foveal.gateway.tenancy.tenant import Tenant, TenantLimits
from support.fake_backend import FakeBackend, fake_backend
from support.running_gateway import ask, gateway_config, post, running_gateway, until


@pytest.fixture
async def big() -> AsyncIterator[FakeBackend]:
    async with fake_backend("big") as backend:
        yield backend


@pytest.fixture
async def small() -> AsyncIterator[FakeBackend]:
    async with fake_backend("small") as backend:
        yield backend


def two_models(big: FakeBackend, small: FakeBackend, **changes: Any) -> GatewayConfig:
    config = gateway_config([big], model={"fallback": "tiny", **changes.pop("model", {})}, **changes)
    entry = BackendConfig(url=small.url, id=small.name)
    return replace(config, models={**config.models, "tiny": ModelConfig(name="tiny", backends=(entry,))})


async def served_by(session: aiohttp.ClientSession, **fields: Any) -> tuple[str, str, str]:
    """(backend, served model, why)"""
    async with session.post("/v1/chat/completions", json=ask(**fields)) as response:
        assert response.status == 200
        await response.read()
        headers = response.headers
        return (
            headers.get("X-Backend", ""),
            headers.get("X-Foveal-Served-Model", ""),
            headers.get("X-Foveal-Fallback", ""),
        )


async def test_the_fallback_answers_while_the_model_is_down_and_says_so(big: FakeBackend, small: FakeBackend) -> None:
    async with running_gateway(two_models(big, small)) as running, aiohttp.ClientSession(running.url) as session:
        assert await served_by(session) == ("big", "", "")
        await big.kill()
        pool = running.gateway.pool
        await until(lambda: not pool.is_available("vlm", running.gateway.now_s()))
        assert await served_by(session) == ("small", "tiny", "primary_down")
    assert small.requests[-1].body["model"] == "tiny"


async def test_the_fallback_answers_when_all_attempts_failed(big: FakeBackend, small: FakeBackend) -> None:
    async with running_gateway(two_models(big, small)) as running, aiohttp.ClientSession(running.url) as session:
        big.behaviour = "failing"
        assert await served_by(session) == ("small", "tiny", "failed")


async def test_the_fallback_answers_when_the_queue_is_full(big: FakeBackend, small: FakeBackend) -> None:
    big.hold.clear()
    config = two_models(big, small, max_in_flight=1, queue=QueueConfig(max_requests=1))
    async with running_gateway(config) as running, aiohttp.ClientSession(running.url) as session:
        first = asyncio.create_task(served_by(session))
        await big.until_received(1)
        second = asyncio.create_task(served_by(session))
        await until(lambda: len(running.gateway.parts.dispatcher) == 1)
        assert await served_by(session) == ("small", "tiny", "queue_full")
        big.hold.set()
        assert {(await first)[0], (await second)[0]} == {"big"}


async def test_a_fallback_s_answer_is_not_kept(big: FakeBackend, small: FakeBackend) -> None:
    async with running_gateway(two_models(big, small)) as running, aiohttp.ClientSession(running.url) as session:
        big.behaviour = "failing"
        assert (await served_by(session, temperature=0))[0] == "small"
        big.behaviour = "good"
        await until(lambda: running.gateway.pool.is_available("vlm", running.gateway.now_s()))
        assert (await served_by(session, temperature=0))[0] == "big"


async def test_simple_requests_go_to_the_small_model_by_rule(big: FakeBackend, small: FakeBackend) -> None:
    rules = (SmartRule(to="tiny", max_text_chars=100, max_output_tokens=32),)
    config = two_models(big, small, model={"smart": rules})
    async with running_gateway(config) as running, aiohttp.ClientSession(running.url) as session:
        assert await served_by(session, max_tokens=8) == ("small", "tiny", "")
        for _ in ("fresh", "kept"):
            assert (await served_by(session, max_tokens=8, temperature=0))[1] == "tiny"
        assert (await served_by(session, max_tokens=800))[0] == "big"


async def test_versions_share_traffic_by_weight_which_the_admin_api_can_change(
    big: FakeBackend, small: FakeBackend
) -> None:
    config = gateway_config([big], admin=AdminConfig(key="a-long-admin-key"))
    versions = {
        name: VersionConfig(version=name, weight=weight, backends=(BackendConfig(url=one.url, id=one.name),))
        for name, weight, one in (("1", 3.0, big), ("2", 1.0, small))
    }
    model = replace(config.models["vlm"], backends=(), versions=versions)
    config = replace(config, models={"vlm": model})
    admin = {"Authorization": "Bearer a-long-admin-key"}
    async with running_gateway(config) as running, aiohttp.ClientSession(running.url) as session:
        for _ in range(40):
            await served_by(session)
        assert (len(big.requests), len(small.requests)) == (30, 10)
        for weights, status in (({"1": 0, "2": 1}, 200), ({"3": 1}, 400)):
            async with session.put("/admin/weights/vlm", json={"weights": weights}, headers=admin) as response:
                assert response.status == status
        assert {(await served_by(session))[0] for _ in range(8)} == {"small"}


async def test_a_late_first_byte_is_hedged_and_the_earlier_answer_wins(big: FakeBackend, small: FakeBackend) -> None:
    hedging = HedgeConfig(enabled=True, min_delay_s=0.05, min_requests=4, budget_fraction=1.0)
    config = gateway_config([big, small], hedging=hedging)
    async with running_gateway(config) as running, aiohttp.ClientSession(running.url) as session:
        for _ in range(12):
            await served_by(session)
        big.hold.clear()
        small_before = len(small.requests)
        answers = [await served_by(session) for _ in range(3)]
        assert {backend for backend, _, _ in answers} == {"small"}
        assert len(small.requests) == small_before + 3
        won = running.gateway.metrics.value("foveal_gateway_hedges_total", result="won") or 0
        await until(lambda: big.num_open == 0)
        assert won == big.left
    assert running.count("success") == 15


async def test_a_class_better_than_the_tenant_s_is_clamped_in_header_and_body(big: FakeBackend) -> None:
    config = gateway_config([big], anonymous=Tenant("anonymous", best_priority=Priority.P2))
    async with running_gateway(config) as running, aiohttp.ClientSession(running.url) as session:
        assert (await post(session, ask(priority="P0"), **{"X-Priority": "P0"}))[0] == 200
        assert (await post(session, ask(), **{"X-Priority": "P0"}))[0] == 200
    assert [request.headers["x-priority"] for request in big.requests] == ["P2", "P2"]
    assert big.requests[0].body["priority"] == 2


async def test_a_connection_too_many_is_counted_as_of_no_class(big: FakeBackend) -> None:
    config = gateway_config([big], listen=ListenConfig(port=0, max_connections=1))
    async with running_gateway(config) as running, aiohttp.ClientSession(running.url) as session:
        assert (await post(session, ask()))[0] == 200
        async with aiohttp.ClientSession(running.url) as other:
            assert (await post(other, ask()))[0] == 503
        shed = running.gateway.metrics.value("foveal_gateway_shed_total", priority="", reason="connections")
    assert shed == 1


async def test_a_limit_of_the_tenant_is_a_429_with_a_time_to_come_back(big: FakeBackend) -> None:
    limits = TenantLimits(requests_per_minute=6)
    config = gateway_config([big], anonymous=Tenant("anonymous", limits=limits, burst_s=10.0))
    async with running_gateway(config) as running, aiohttp.ClientSession(running.url) as session:
        assert (await post(session, ask()))[0] == 200
        async with session.post("/v1/chat/completions", json=ask()) as refused:
            assert (refused.status, (await refused.json())["error"]["code"]) == (429, "rate_limited")
            assert int(refused.headers["Retry-After"]) >= 1
    assert (running.count("success"), running.count("limited")) == (1, 1)


async def test_a_model_that_the_tenant_may_not_use_does_not_exist_for_it(big: FakeBackend, small: FakeBackend) -> None:
    config = replace(two_models(big, small), anonymous=Tenant("anonymous", models=frozenset({"tiny"})))
    async with running_gateway(config) as running, aiohttp.ClientSession(running.url) as session:
        assert (await post(session, ask()))[0] == 404
        async with session.get("/v1/models") as response:
            assert [model["id"] for model in (await response.json())["data"]] == ["tiny"]
