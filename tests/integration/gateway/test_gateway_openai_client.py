"""The official client over a gateway in front of our server: the same contract as without a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from foveal.engine.server.config import ServerConfig
from support.fake_backend import FakeBackend
from support.fake_engine import FakeEngine
from support.openai_contract import OpenAIClientContract, Served
from support.running_gateway import gateway_config, running_gateway
from support.running_server import running_server


class TestOpenAIClientOverTheGateway(OpenAIClientContract):
    @pytest.fixture
    async def served(self) -> AsyncIterator[Served]:
        config = ServerConfig(port=0, access_log=False, served_model_names=("vlm",))
        async with running_server(FakeEngine(), config) as server:
            backend = FakeBackend("engine", port=int(server.url.rsplit(":", 1)[1]))
            async with running_gateway(gateway_config([backend])) as running:
                yield Served(running.url + "/v1", "vlm")
