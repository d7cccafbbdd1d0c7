"""The official client over a real socket, with the fake engine: the shared contract, and what needs a fake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from foveal.core.errors import EngineDeadError, OverloadedError
from foveal.engine.server.config import ServerConfig
from support.fake_engine import FakeEngine
from support.openai_contract import OpenAIClientContract, Served
from support.running_server import RunningServer, running_server

USER: list[Any] = [{"role": "user", "content": "hi"}]


class TestOpenAIClientOverFakeEngine(OpenAIClientContract):
    @pytest.fixture
    async def served(self) -> AsyncIterator[Served]:
        async with running_server(FakeEngine()) as running:
            yield Served(running.url + "/v1", "fake-vlm")


@pytest.fixture
async def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def running(engine: FakeEngine) -> AsyncIterator[RunningServer]:
    config = ServerConfig(port=0, access_log=False, max_body_bytes=1 << 20, request_timeout_s=30, api_key="right")
    async with running_server(engine, config) as running:
        yield running


def client_of(running: RunningServer, key: str = "right") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=running.url + "/v1", api_key=key, max_retries=0)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (EngineDeadError("killed"), openai.InternalServerError),
        (OverloadedError("full"), openai.InternalServerError),
        (RuntimeError("bug"), openai.InternalServerError),
    ],
)
async def test_server_side_failures_raise_internal_server_error(
    engine: FakeEngine, running: RunningServer, failure: Exception, expected: type[openai.APIStatusError]
) -> None:
    engine.fail_after, engine.failure = 0, failure
    async with client_of(running) as client:
        with pytest.raises(expected):
            await client.chat.completions.create(model="fake-vlm", messages=USER)


async def test_a_failure_in_mid_stream_raises_in_the_client(engine: FakeEngine, running: RunningServer) -> None:
    engine.fail_after, engine.failure = 3, EngineDeadError("the engine process was killed")
    async with client_of(running) as client:
        stream = await client.chat.completions.create(model="fake-vlm", messages=USER, stream=True)
        chunks = aiter(stream)
        for _ in range(4):
            assert (await anext(chunks)).choices
        with pytest.raises(openai.APIError, match="the engine process was killed"):
            await anext(chunks)


async def test_a_wrong_key_raises_authentication_error(running: RunningServer) -> None:
    async with client_of(running, "wrong") as client:
        with pytest.raises(openai.AuthenticationError, match="Authorization: Bearer"):
            await client.models.list()


async def test_a_100_mb_body_is_refused_and_the_client_reads_why(running: RunningServer) -> None:
    async with client_of(running) as client:
        for _ in range(2):
            with pytest.raises(openai.APIStatusError, match="the limit is 1,048,576") as caught:
                await client.chat.completions.create(
                    model="fake-vlm", messages=[{"role": "user", "content": "x" * 100_000_000}]
                )
            assert caught.value.status_code == 413
        assert (await client.chat.completions.create(model="fake-vlm", messages=USER)).choices
    assert running.server.context.admission.num_bytes == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_closing_the_connection_aborts_the_request(
    engine: FakeEngine, running: RunningServer, stream: bool
) -> None:
    engine.hold_after = 2
    client = client_of(running)

    async def ask() -> None:
        answer = await client.chat.completions.create(model="fake-vlm", messages=USER, stream=stream)
        if stream:
            async for _ in answer:
                pass

    asking = asyncio.create_task(ask())
    await engine.holding.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await client.close()
    await engine.ended.wait()
    assert engine.aborted == [engine.requests[0].request_id]
    assert engine.num_in_flight == 0
