"""Admission, bodies and configuration."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from foveal.core.errors import ConfigurationError, InvalidRequestError, OverloadedError
from foveal.engine.server.body import BodyTimeoutError, BodyTooLargeError, ClientLeftError, read_body
from foveal.engine.server.config import ServerConfig
from foveal.engine.server.limits import Admission
from foveal.protocol.remote_image.fetch_config import FetchConfig

CONFIG = ServerConfig(max_body_bytes=100, max_body_bytes_in_flight=150, max_concurrent_requests=2)


async def chunks(*parts: bytes) -> AsyncIterator[dict[str, Any]]:
    for index, part in enumerate(parts):
        yield {"type": "http.request", "body": part, "more_body": index < len(parts) - 1}


def scope(**headers: str) -> dict[str, Any]:
    return {"headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]}


async def test_a_chunked_body_is_put_together_and_counted() -> None:
    admission = Admission(CONFIG)
    with admission.enter() as lease:
        body = await read_body(scope(), chunks(b"ab", b"", b"c").__anext__, CONFIG, lease)
        assert (body, admission.num_bytes) == (b"abc", 3)
    assert (admission.num_bytes, admission.num_requests) == (0, 0)


async def test_content_length_over_the_limit_is_refused_without_reading() -> None:
    async def receive() -> dict[str, Any]:
        pytest.fail("the body was read")

    with Admission(CONFIG).enter() as lease, pytest.raises(BodyTooLargeError, match="limit is 100"):
        await read_body(scope(content_length="101"), receive, CONFIG, lease)


async def test_a_chunked_body_is_refused_as_soon_as_it_passes_the_limit() -> None:
    source = chunks(*[bytes(60)] * 1000)
    with Admission(CONFIG).enter() as lease, pytest.raises(BodyTooLargeError):
        await read_body(scope(), source.__anext__, CONFIG, lease)
    assert (await anext(source))["more_body"], "the rest was read"


async def test_bytes_of_all_requests_together_are_bounded() -> None:
    admission = Admission(CONFIG)
    with admission.enter() as first, admission.enter() as second:
        first.grow(90)
        with pytest.raises(OverloadedError, match="hold 90 bytes"):
            await read_body(scope(content_length="80"), chunks(bytes(80)).__anext__, CONFIG, second)
        assert admission.num_bytes == 90
    assert admission.num_bytes == 0


async def test_requests_above_the_limit_are_told_to_retry() -> None:
    admission, done = Admission(CONFIG), asyncio.Event()

    async def hold() -> None:
        with admission.enter():
            await done.wait()

    async with asyncio.TaskGroup() as requests:
        for _ in range(2):
            requests.create_task(hold())
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="limit is 2"), admission.enter():
            pass
        assert admission.num_requests == 2
        done.set()
    assert admission.num_requests == 0


async def test_a_client_that_leaves_while_sending_is_noticed() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    with Admission(CONFIG).enter() as lease, pytest.raises(ClientLeftError):
        await read_body(scope(), receive, CONFIG, lease)


async def test_a_body_that_never_ends_runs_into_the_time_limit() -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    config = ServerConfig(body_timeout_s=0.01)
    with Admission(config).enter() as lease, pytest.raises(BodyTimeoutError) as caught:
        await read_body(scope(), receive, config, lease)
    assert caught.value.status == 408


async def test_a_compressed_body_is_refused() -> None:
    with Admission(CONFIG).enter() as lease, pytest.raises(InvalidRequestError, match="uncompressed"):
        await read_body(scope(content_encoding="gzip"), chunks(b"x").__anext__, CONFIG, lease)


async def test_drain_waits_for_the_last_request_and_admits_no_other() -> None:
    admission = Admission(CONFIG)
    with admission.enter():
        draining = asyncio.create_task(admission.in_flight.drain(grace_s=60))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="shutting down"), admission.enter():
            pass
        assert not draining.done()
    assert await draining is True


async def test_drain_gives_up_after_the_grace_period() -> None:
    admission = Admission(CONFIG)
    with admission.enter():
        assert await admission.in_flight.drain(grace_s=0.01) is False


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"port": 70000}, "port is 70000"),
        ({"max_body_bytes": 0}, "max_body_bytes is 0"),
        ({"max_images": -1}, "max_images is -1"),
        ({"request_timeout_s": 0}, "must be above 0"),
        ({"drain_grace_s": -1}, "drain_grace_s is -1"),
        ({"max_body_bytes": 10, "max_body_bytes_in_flight": 5}, "could never be admitted"),
        ({"api_key": ""}, "api_key is empty"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        ServerConfig(**changes)


def test_a_fetch_configuration_that_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="max_concurrent is 0"):
        FetchConfig(max_concurrent=0)
