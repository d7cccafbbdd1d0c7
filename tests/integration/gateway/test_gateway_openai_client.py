"""The official client over a gateway in front of our server: the same contract as without a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from support.fake_backend import FakeBackend
from support.fake_engine import FakeEngine
from support.openai_contract import OpenAIClientContract, Served
from support.running_gateway import gateway_config, running_gateway
from support.running_server import running_server


class TestOpenAIClientOverTheGateway(OpenAIClientContract):
    @pytest.fixture
    async def served(self) -> AsyncIterator[Served]:
        async with running_server(FakeEngine()) as server:
            backend = FakeBackend("engine", port=int(server.url.rsplit(":", 1)[1]))
            config = gateway_config([backend])
            config = replace(config, models={"fake-vlm": replace(config.models["vlm"], name="fake-vlm")})
            async with running_gateway(config) as running:
                yield Served(running.url + "/v1", "fake-vlm")
