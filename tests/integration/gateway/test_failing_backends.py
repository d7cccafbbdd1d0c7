"""Backends that die, freeze, lie and mumble: what the client sees, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from foveal.gateway.config.models import BackendConfig
from foveal.gateway.config.traffic import QueueDeadlines, TimeoutConfig
from support.fake_backend import FakeBackend, fake_backend
from support.running_gateway import RunningGateway, ask, gateway_config, post, running_gateway, until

SHORT = TimeoutConfig(connect_s=1.0, first_byte_s=0.3, idle_s=0.3, total_s=20.0)
SILENT = ["frozen", "silent_after_head"]
BEFORE_THE_FIRST_BYTE = [
    *SILENT,
    "dies_before_head",
    "dies_after_head",
    "garbage",
    "html",
    "busy",
    "failing",
]


@pytest.fixture
async def good() -> AsyncIterator[FakeBackend]:
    async with fake_backend("good") as backend:
        yield backend


@pytest.fixture
async def bad() -> AsyncIterator[FakeBackend]:
    async with fake_backend("bad") as backend:
        yield backend


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("behaviour", [*BEFORE_THE_FIRST_BYTE, "half_json"])
async def test_a_failure_before_the_first_byte_is_hidden_by_another_backend(
    good: FakeBackend, bad: FakeBackend, behaviour: Any, stream: bool
) -> None:
    if stream and behaviour == "half_json":
        pytest.skip("an answer that is no stream")
    if not stream and behaviour in SILENT:
        pytest.skip("without a stream a long answer is as silent")
    bad.behaviour = behaviour
    # The bad one comes first: nothing is known of either, and the order breaks the tie.
    async with (
        running_gateway(gateway_config([bad, good], timeouts=SHORT), wait_ready=False) as running,
        aiohttp.ClientSession(running.url) as session,
    ):
        await _until_up(running, "good")
        for _ in range(6):
            async with session.post("/v1/chat/completions", json=ask(stream=stream)) as response:
                assert response.status == 200
                text = await response.read()
                assert b"quick" in text
                assert not stream or text.endswith(b"data: [DONE]\n\n")
    assert running.count("success") == 6


@pytest.mark.parametrize(
    ("behaviour", "statuses", "codes"),
    [
        ("frozen", {504, 503}, {"timeout", "no_backend"}),  # 503 once health checks have ejected it
        ("silent_after_head", {504}, {"timeout"}),
        ("dies_before_head", {502}, {"backend_failed"}),
        ("garbage", {502}, {"backend_failed"}),
        ("html", {502}, {"backend_failed"}),
        ("half_json", {502}, {"backend_failed"}),
        ("busy", {503}, {"busy"}),
        ("failing", {500}, {"failing"}),
    ],
)
async def test_without_another_backend_the_failure_becomes_an_explicit_error(
    bad: FakeBackend, behaviour: Any, statuses: set[int], codes: set[str]
) -> None:
    config = gateway_config([bad], deadlines_s=QueueDeadlines(0.5, 0.5, 0.5), timeouts=SHORT)
    async with running_gateway(config) as running, aiohttp.ClientSession(running.url) as session:
        bad.behaviour = behaviour
        status, body = await post(session, ask(stream=behaviour in SILENT))
        assert status in statuses
        assert body["error"]["code"] in codes
    assert running.ended == 1


@pytest.mark.parametrize("behaviour", ["dies_mid_stream", "dies_mid_event", "ends_without_done", "silent_mid_stream"])
async def test_a_failure_after_the_first_byte_ends_the_stream_with_an_explicit_error_and_no_second_try(
    good: FakeBackend, bad: FakeBackend, behaviour: Any
) -> None:
    async with (
        running_gateway(gateway_config([bad, good], timeouts=SHORT)) as running,
        aiohttp.ClientSession(running.url) as session,
    ):
        bad.behaviours[0] = behaviour
        good.behaviours[0] = behaviour
        async with session.post("/v1/chat/completions", json=ask(stream=True)) as response:
            assert response.status == 200
            text = await response.read()
        events = [json.loads(event.removeprefix(b"data: ")) for event in text.split(b"\n\n") if event]
        assert [event["choices"][0]["delta"]["content"] for event in events[:2]] == ["the ", "quick "]
        assert events[2]["error"]["code"] in ("backend_failed", "timeout")
        assert len(events) == 3
        assert len(bad.requests) + len(good.requests) == 1
    assert running.count("error") + running.count("timeout") == 1


async def test_an_error_of_the_backend_s_own_inside_a_stream_passes_once(bad: FakeBackend) -> None:
    async with running_gateway(gateway_config([bad])) as running, aiohttp.ClientSession(running.url) as session:
        bad.behaviour = "error_event"
        async with session.post("/v1/chat/completions", json=ask(stream=True)) as response:
            text = await response.read()
        assert text.count(b'"error"') == 1
        assert b"out of memory" in text
    assert running.count("error") == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_the_backend(good: FakeBackend, stream: bool) -> None:
    good.hold.clear()
    good.hold_after_words = 2 if stream else None
    async with running_gateway(gateway_config([good], max_in_flight=1)) as running:
        async with aiohttp.ClientSession(running.url) as session:
            asking = asyncio.create_task(session.post("/v1/chat/completions", json=ask(stream=stream)))
            await good.until_received(1)
            if stream:
                await (await asking).content.readuntil(b"\n\n")
        asking.cancel()
        await until(lambda: good.left == 1)
        assert running.gateway.pool.num_in_flight == 0
        good.hold.set()
        async with aiohttp.ClientSession(running.url) as session:
            assert (await post(session, ask()))[0] == 200
    assert (running.count("aborted"), running.count("success")) == (1, 1)


async def test_a_client_that_leaves_while_it_waits_never_reaches_a_backend(good: FakeBackend) -> None:
    good.hold.clear()
    async with (
        running_gateway(gateway_config([good], max_in_flight=1)) as running,
        aiohttp.ClientSession(running.url) as session,
    ):
        first = asyncio.create_task(post(session, ask()))
        await good.until_received(1)
        async with aiohttp.ClientSession(running.url) as other:
            second = asyncio.create_task(post(other, ask()))
            await until(lambda: len(running.gateway.parts.dispatcher) == 1)
            second.cancel()
        await until(lambda: len(running.gateway.parts.dispatcher) == 0)
        good.hold.set()
        assert (await first)[0] == 200
    assert len(good.requests) == 1
    assert running.count("aborted") == 1


async def test_a_killed_backend_costs_no_client_an_error_and_is_used_again_when_it_is_back(
    good: FakeBackend, bad: FakeBackend
) -> None:
    async with (
        running_gateway(gateway_config([bad, good])) as running,
        aiohttp.ClientSession(running.url) as session,
    ):
        bad.hold.clear()
        good.hold.clear()
        asking = [asyncio.create_task(post(session, ask())) for _ in range(8)]
        await until(lambda: len(bad.requests) + len(good.requests) == 8)
        assert bad.requests
        await bad.kill()
        good.hold.set()
        assert [status for status, _ in await asyncio.gather(*asking)] == [200] * 8
        bad.hold.set()
        await bad.start()
        await _until_up(running, "bad")
        before = len(bad.requests)
        async with asyncio.timeout(20):
            while len(bad.requests) == before:
                assert (await post(session, ask()))[0] == 200
    assert running.count("success") == running.ended


async def test_a_lone_backend_that_restarts_is_waited_for(good: FakeBackend) -> None:
    async with running_gateway(gateway_config([good])) as running, aiohttp.ClientSession(running.url) as session:
        await good.kill()
        asking = asyncio.create_task(post(session, ask()))
        await until(lambda: len(running.gateway.parts.dispatcher) == 1)
        await good.start()
        assert (await asking)[0] == 200


async def test_a_backend_whose_name_does_not_resolve_is_an_explicit_error_in_bounded_time(good: FakeBackend) -> None:
    config = gateway_config([good], deadlines_s=QueueDeadlines(0.2, 0.2, 0.2))
    model = replace(config.models["vlm"], backends=(BackendConfig(url="http://no-such-host.invalid:1"),))
    config = replace(config, models={"vlm": model})
    async with (
        running_gateway(config, wait_ready=False) as running,
        aiohttp.ClientSession(running.url) as session,
        asyncio.timeout(10),
    ):
        status, body = await post(session, ask())
        assert (status, body["error"]["code"]) == (503, "no_backend")
        async with session.get("/ready") as response:
            assert response.status == 503
    assert running.count("shed") == 1


async def test_a_stream_whose_client_reads_nothing_is_given_up_without_harm(good: FakeBackend) -> None:
    good.words = ("x" * 200_000,) * 100
    async with running_gateway(gateway_config([good])) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rsplit(":", 1)[1]))
        body = json.dumps(ask(stream=True)).encode()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        )
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        await until(lambda: running.gateway.pool.num_in_flight == 1)
        writer.transport.abort()
        await until(lambda: running.gateway.pool.num_in_flight == 0)
    assert running.count("aborted") == 1


async def _until_up(running: RunningGateway, name: str) -> None:
    pool, clock = running.gateway.pool, running.gateway
    await until(lambda: any(one.spec.id == name and one.state.takes_requests for one in pool.loads(clock.now_s())))
