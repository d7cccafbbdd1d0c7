"""schemathesis drives the gateway's /openapi.json, with our own server as its backend: no 5xx, no undocumented answer."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from foveal.engine.server.config import ServerConfig
from foveal.gateway.serving.gateway import gateway_version
from foveal.gateway.serving.openapi import gateway_openapi_document
from support.fake_backend import FakeBackend
from support.fake_engine import FakeEngine
from support.pictures import data_url
from support.running_gateway import RunningGateway, gateway_config, running_gateway
from support.running_server import running_server

PICTURE = data_url()
EXAMPLES = 40
"""Per operation and kind."""

_CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


class _Thread:
    """Gateway and backend on a loop of their own: schemathesis is synchronous."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self.running: RunningGateway | None = None
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._main(),))
        self._thread.start()
        self._ready.wait(30)

    async def _main(self) -> None:
        config = ServerConfig(port=0, access_log=False, max_images=2, served_model_names=("vlm",))
        async with running_server(FakeEngine(default_tokens=3), config) as server:
            backend = FakeBackend("engine", port=int(server.url.rsplit(":", 1)[1]))
            async with running_gateway(gateway_config([backend])) as self.running:
                self._ready.set()
                await self._stop.wait()

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        self._loop.close()


@pytest.fixture(scope="module")
def gateway() -> Iterator[RunningGateway]:
    thread = _Thread()
    assert thread.running is not None
    yield thread.running
    thread.end()


SCHEMA = schemathesis.openapi.from_dict(gateway_openapi_document(gateway_version()))
OPERATIONS = {operation.label: operation for operation in (result.ok() for result in SCHEMA.get_all_operations())}
GENERATED = [label for label in OPERATIONS if label.startswith("POST")]


def plausible(body: dict[str, Any]) -> dict[str, Any]:
    """Random names and addresses would end nearly every request at the same two checks."""
    body = copy.deepcopy(body)
    if isinstance(body.get("model"), str):
        body["model"] = "vlm"
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and isinstance(part.get("image_url"), str):
                part["image_url"] = PICTURE
            elif isinstance(part, dict) and isinstance(part.get("image_url"), dict) and "url" in part["image_url"]:
                part["image_url"]["url"] = PICTURE
    return body


def fuzz(gateway: RunningGateway, label: str, mode: GenerationMode, num_examples: int) -> None:
    @settings(
        max_examples=num_examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode))
    def call(case: schemathesis.Case) -> None:
        if isinstance(case.body, dict):
            case.body = plausible(case.body)
        case.validate_response(case.call(base_url=gateway.url), checks=_CHECKS)

    call()


@pytest.mark.parametrize("label", OPERATIONS)
def test_valid_requests_get_documented_answers(gateway: RunningGateway, label: str) -> None:
    fuzz(gateway, label, GenerationMode.POSITIVE, EXAMPLES if label in GENERATED else 3)


@pytest.mark.parametrize("label", GENERATED)
def test_invalid_requests_get_documented_answers(gateway: RunningGateway, label: str) -> None:
    fuzz(gateway, label, GenerationMode.NEGATIVE, EXAMPLES)


async def test_the_served_document_is_the_one_that_is_tested(gateway: RunningGateway) -> None:
    async with aiohttp.ClientSession(gateway.url) as session, session.get("/openapi.json") as response:
        assert await response.json() == gateway_openapi_document(gateway_version())


def test_nothing_is_left_behind(gateway: RunningGateway) -> None:
    assert gateway.gateway.pool.num_in_flight == 0
    assert gateway.gateway.in_flight.num_requests == 0
