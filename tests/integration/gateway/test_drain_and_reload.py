"""Ending and changing a gateway that is at work: nothing in flight notices."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from foveal.core.errors import ConfigurationError
from foveal.gateway.config.gateway import GatewayConfig
from foveal.gateway.config.listen import ListenConfig
from foveal.gateway.tenancy.tenant import Tenant
from foveal.protocol.sse import parse_events
from support.fake_backend import FakeBackend, fake_backend
from support.running_gateway import ask, gateway_config, post, running_gateway, until


@pytest.fixture
async def one() -> AsyncIterator[FakeBackend]:
    async with fake_backend("one") as backend:
        yield backend


@pytest.fixture
async def two() -> AsyncIterator[FakeBackend]:
    async with fake_backend("two") as backend:
        yield backend


async def test_draining_finishes_streams_refuses_new_requests_and_exits_0(one: FakeBackend) -> None:
    one.hold_after_words = 2
    one.hold.clear()
    async with running_gateway(gateway_config([one])) as running, aiohttp.ClientSession(running.url) as session:
        streams = [await session.post("/v1/chat/completions", json=ask(stream=True)) for _ in range(3)]
        running.runner.request_stop()
        await until(lambda: running.gateway.in_flight.draining)
        async with aiohttp.ClientSession(running.url) as other:
            async with other.get("/ready") as ready:
                assert (ready.status, (await ready.json())["status"]) == (503, "draining")
            async with other.post("/v1/chat/completions", json=ask()) as refused:
                assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        one.hold.set()
        for stream in streams:
            assert parse_events(await stream.read())[-1]["choices"][0]["finish_reason"] == "stop"
        assert await running.exit_status == 0
    shed = [
        (sample.labels["priority"], sample.labels["reason"], sample.value)
        for family in running.gateway.metrics.registry.collect()
        for sample in family.samples
        if sample.name == "foveal_gateway_shed_total" and sample.value
    ]
    assert running.count("success") == 3
    assert shed == [("", "draining", 1)], "its body, and with it its class, was not read"


async def test_what_outlives_the_grace_period_gets_an_explicit_error(one: FakeBackend) -> None:
    one.hold.clear()
    config = gateway_config([one], listen=ListenConfig(port=0, drain_grace_s=0.05))
    async with running_gateway(config) as running, aiohttp.ClientSession(running.url) as session:
        one.hold_after_words = 1
        stream = await session.post("/v1/chat/completions", json=ask(stream=True))
        one.hold_after_words = None
        whole = asyncio.create_task(session.post("/v1/chat/completions", json=ask()))
        await one.until_received(2)
        running.runner.request_stop()
        assert b'data: {"error":{"message":"the gateway shut down' in await stream.read()
        assert (await whole).status == 503
        assert await running.exit_status == 1
    assert running.count("shed") == 2


async def test_a_reload_moves_traffic_and_touches_nothing_in_flight(one: FakeBackend, two: FakeBackend) -> None:
    configs: list[GatewayConfig] = [gateway_config([one])]
    one.hold_after_words = 1
    one.hold.clear()
    async with running_gateway(lambda: configs[-1]) as running, aiohttp.ClientSession(running.url) as session:
        stream = await session.post("/v1/chat/completions", json=ask(stream=True))
        configs.append(gateway_config([two]))
        await running.gateway.reload()
        assert (await post(session, ask()))[0] == 200
        assert len(two.requests) == 1
        one.hold.set()
        assert parse_events(await stream.read())[-1]["choices"][0]["finish_reason"] == "stop"
    assert running.count("success") == 2


async def test_a_configuration_with_mistakes_changes_nothing(one: FakeBackend) -> None:
    answers: list[GatewayConfig | ConfigurationError] = [gateway_config([one])]

    def load() -> GatewayConfig:
        if isinstance(answers[-1], ConfigurationError):
            raise answers[-1]
        return answers[-1]

    async with running_gateway(load) as running, aiohttp.ClientSession(running.url) as session:
        answers.append(ConfigurationError("gateway.yaml:3: no"))
        running.runner.request_reload()
        await until(lambda: running.gateway.metrics.value("foveal_gateway_config_reloads_total", result="refused"))
        assert (await post(session, ask()))[0] == 200


async def test_a_model_that_a_reload_takes_away_is_refused_and_who_waits_for_it_is_told(one: FakeBackend) -> None:
    first = gateway_config([one], max_in_flight=1)
    configs = [first]
    one.hold.clear()
    async with running_gateway(lambda: configs[-1]) as running, aiohttp.ClientSession(running.url) as session:
        served = asyncio.create_task(post(session, ask()))
        await one.until_received(1)
        waiting = asyncio.create_task(post(session, ask()))
        await until(lambda: len(running.gateway.parts.dispatcher) == 1)
        configs.append(replace(first, models={"other": replace(first.models["vlm"], name="other")}))
        await running.gateway.reload()
        assert (await waiting)[0] == 503
        assert (await post(session, ask()))[0] == 404
        one.hold.set()
        assert (await served)[0] == 200


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_a_model_that_goes_while_a_request_is_admitted_is_said_to_be_out_of_service(
    one: FakeBackend, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    first = gateway_config([one])
    configs = [first]
    async with running_gateway(lambda: configs[-1]) as running, aiohttp.ClientSession(running.url) as session:
        authenticate = running.gateway.parts.tenancy.authenticate

        async def slowly(headers: Mapping[bytes, bytes]) -> Tenant:
            configs.append(replace(first, models={"other": replace(first.models["vlm"], name="other")}))
            await running.gateway.reload()
            return await authenticate(headers)

        monkeypatch.setattr(running.gateway.parts.tenancy, "authenticate", slowly)
        status, body = await post(session, ask(temperature=temperature))
    assert (status, body["error"]["code"]) == (503, "no_backend")
    assert one.requests == []


async def test_reloads_under_load_cost_no_request_an_error(one: FakeBackend, two: FakeBackend) -> None:
    configs = [gateway_config([one])]
    statuses: list[int] = []
    async with running_gateway(lambda: configs[-1]) as running, aiohttp.ClientSession(running.url) as session:
        stop = asyncio.Event()

        async def client(stream: bool) -> None:
            while not stop.is_set():
                async with session.post("/v1/chat/completions", json=ask(stream=stream)) as response:
                    text = await response.read()
                    statuses.append(response.status if not stream or text.endswith(b"[DONE]\n\n") else 0)

        clients = [asyncio.create_task(client(number % 2 == 0)) for number in range(6)]
        for backends in [[one, two], [two], [two, one], [one]] * 3:
            before = len(statuses)
            configs.append(gateway_config(backends))
            await running.gateway.reload()
            await until(lambda before=before: len(statuses) >= before + 10)
        stop.set()
        await asyncio.gather(*clients)
    assert set(statuses) == {200}
    assert one.requests
    assert two.requests


async def test_sighup_reloads_and_sigterm_drains_a_real_process(one: FakeBackend, tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(f"models: {{vlm: {{backends: ['{one.url}']}}}}\nlogging: {{format: json}}\n")
    paths = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-m", "foveal.cli.app", "gateway", str(file), "--port", "0"]
    one.hold_after_words = 2
    one.hold.clear()
    with (
        subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
        ) as process,
        ExitStack() as on_failure,
    ):
        on_failure.callback(process.kill)
        assert process.stderr is not None
        url = await _line_with(process, "http://")
        async with aiohttp.ClientSession(url) as session:
            stream = await session.post("/v1/chat/completions", json=ask(stream=True))
            file.write_text(f"models: {{new: {{backends: ['{one.url}']}}}}\nlogging: {{format: json}}\n")
            process.send_signal(signal.SIGHUP)
            await _line_with(process, "reloaded")
            async with session.post("/v1/chat/completions", json=ask()) as refused:
                assert refused.status == 404
            process.send_signal(signal.SIGTERM)
            await _line_with(process, "draining")
            one.hold.set()
            assert parse_events(await stream.read())[-1]["choices"][0]["finish_reason"] == "stop"
        await asyncio.to_thread(process.communicate, None, 30)
        on_failure.pop_all()
    assert process.returncode == 0


async def _line_with(process: subprocess.Popen[str], text: str) -> str:
    """The first URL of the first line that holds `text`, else the line."""
    assert process.stderr is not None
    async with asyncio.timeout(30):
        while text not in (line := await asyncio.to_thread(process.stderr.readline)):
            assert line, "the process ended"
    words = [word.strip('",;}') for word in line.replace('"', " ").split() if word.startswith("http://")]
    return words[0] if words else line
