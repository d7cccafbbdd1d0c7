"""schemathesis drives the served /openapi.json: whatever it sends, no 5xx but a deliberate 503, and no undocumented answer."""

from __future__ import annotations

import asyncio
import copy
import threading
import zlib
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

from foveal.engine.server.app import server_version
from foveal.engine.server.config import ServerConfig
from foveal.protocol.openapi import openapi_document
from support.fake_engine import FakeEngine
from support.pictures import data_url
from support.running_server import RunningServer, running_server

PICTURE = data_url()
EXAMPLES = 50
"""Per operation and kind."""

_CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


class _Thread:
    """The server on a loop of its own: schemathesis is synchronous."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self.running: RunningServer | None = None
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._main(),))
        self._thread.start()
        self._ready.wait(30)

    async def _main(self) -> None:
        config = ServerConfig(port=0, access_log=False, max_images=2)
        async with running_server(FakeEngine(default_tokens=3), config) as self.running:
            self._ready.set()
            await self._stop.wait()

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        self._loop.close()


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    thread = _Thread()
    assert thread.running is not None
    yield thread.running
    thread.end()


SCHEMA = schemathesis.openapi.from_dict(openapi_document(server_version()))
OPERATIONS = {operation.label: operation for operation in (result.ok() for result in SCHEMA.get_all_operations())}
GENERATED = [label for label in OPERATIONS if label.startswith("POST")]


def plausible(body: dict[str, Any]) -> dict[str, Any]:
    """Random names, addresses and dependent fields would end nearly every request at the same three checks."""
    body = copy.deepcopy(body)
    if isinstance(body.get("model"), str):
        body["model"] = "fake-vlm"
    if isinstance(body.get("logit_bias"), dict):
        body["logit_bias"] = {}
    for name in ("suffix", "echo", "best_of", "min_tokens", "truncate_prompt_tokens"):
        if name in body and random_bit(body, name):
            del body[name]
    if "top_logprobs" in body and random_bit(body, "logprobs"):
        body["logprobs"] = True
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and isinstance(part.get("image_url"), str):
                part["image_url"] = PICTURE
            elif isinstance(part, dict) and isinstance(part.get("image_url"), dict) and "url" in part["image_url"]:
                part["image_url"]["url"] = PICTURE
    return body


def random_bit(body: dict[str, Any], name: str) -> bool:
    """Three times of four, the same for the same request."""
    return zlib.crc32((name + repr(body)).encode("utf-8", "replace")) % 4 > 0


def fuzz(server: RunningServer, label: str, mode: GenerationMode, num_examples: int) -> None:
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
        case.validate_response(case.call(base_url=server.url), checks=_CHECKS)

    call()


@pytest.mark.parametrize("label", OPERATIONS)
def test_valid_requests_get_documented_answers(server: RunningServer, label: str) -> None:
    fuzz(server, label, GenerationMode.POSITIVE, EXAMPLES if label in GENERATED else 3)


@pytest.mark.parametrize("label", GENERATED)
def test_invalid_requests_get_documented_answers(server: RunningServer, label: str) -> None:
    fuzz(server, label, GenerationMode.NEGATIVE, EXAMPLES)


async def test_the_served_document_is_the_one_that_is_tested(server: RunningServer) -> None:
    async with aiohttp.ClientSession(server.url) as session, session.get("/openapi.json") as response:
        assert await response.json() == openapi_document(server_version())


def test_nothing_is_left_behind(server: RunningServer) -> None:
    admission = server.server.context.admission
    assert (admission.num_requests, admission.num_bytes) == (0, 0)
