"""The client against a fake server on loopback, with a clock that only the test moves."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from foveal.core.clock import Clock
from foveal.core.errors import ConfigurationError
from foveal.core.priority import Priority
from foveal.evaluation.load.client import ChatClient, base_url
from foveal.evaluation.load.dataset import LoadRequest
from foveal.evaluation.load.event_stream import EventStream
from foveal.evaluation.load.record import RequestRecord
from unit.evaluation.load.fake_server import FakeServer, WatchedClock, serving

TEXT = [{"type": "text", "text": "one two three"}]


@pytest_asyncio.fixture(loop_scope="function")
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def ask(
    http: aiohttp.ClientSession,
    server: FakeServer,
    max_tokens: int = 3,
    clock: Clock | None = None,
    timeout_s: float = 5.0,
) -> RequestRecord:
    async with serving(server):
        client = ChatClient(http, server.url, model="fake-vlm", clock=clock, timeout_s=timeout_s)
        return await client.send(LoadRequest(4, TEXT, max_tokens, Priority.P0))


async def test_each_token_is_stamped_when_it_arrives(http: aiohttp.ClientSession) -> None:
    clock = WatchedClock()
    clock.advance(100.0)
    record = await ask(http, FakeServer(clock=clock, gaps_s=(0.5, 0.1, 0.25)), clock=clock)
    assert record.error is None
    assert record.text_s == pytest.approx((100.5, 100.6, 100.85))
    assert record.ttft_s == pytest.approx(0.5)
    assert record.tpot_s == pytest.approx(0.175)
    assert record.gaps_s == pytest.approx([0.1, 0.25])
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (13, 3, 3)


async def test_latency_counts_from_when_the_request_was_due(http: aiohttp.ClientSession) -> None:
    async with serving(FakeServer()) as server:
        client = ChatClient(http, server.url, model="fake-vlm")
        record = await client.send(LoadRequest(0, TEXT, 1), due_s=-1000.0)
    assert record.start_s == -1000.0
    assert record.ttft_s is not None
    assert record.ttft_s > 1000.0


async def test_the_request_says_what_is_measured(http: aiohttp.ClientSession) -> None:
    server = FakeServer()
    await ask(http, server, max_tokens=2)
    [body], [headers] = server.bodies, server.headers
    assert body["max_tokens"] == 2
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert body["ignore_eos"] is True
    assert headers["X-Priority"] == "P0"


async def test_without_usage_events_are_counted(http: aiohttp.ClientSession) -> None:
    record = await ask(http, FakeServer(report_usage=False), max_tokens=4)
    assert (record.completion_tokens, record.prompt_tokens) == (4, 0)


@pytest.mark.parametrize(
    ("server", "kind"),
    [
        (FakeServer(status=503), "HTTP 503 overloaded"),
        (FakeServer(status=307), "HTTP 307 overloaded"),
        (FakeServer(error_event_after=1), "error event engine_dead"),
        (FakeServer(break_after=2), "connection broken"),
    ],
)
async def test_failures_are_told_apart(http: aiohttp.ClientSession, server: FakeServer, kind: str) -> None:
    record = await ask(http, server)
    assert record.error is not None
    assert record.error.startswith(kind)
    assert not record.ok


async def test_an_answer_that_takes_too_long_is_given_up(http: aiohttp.ClientSession) -> None:
    never = WatchedClock()  # nobody looks at it, so the server waits for ever
    record = await ask(http, FakeServer(clock=never, gaps_s=(1.0,) * 3), timeout_s=0.05)
    assert record.error == "no complete answer in 0.05 s"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_server_that_is_not_there_is_told_with_a_remedy(http: aiohttp.ClientSession) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ConfigurationError, match="foveal serve MODEL"):
        await ChatClient.find_model(http, url)
    record = await ChatClient(http, url, model="m").send(LoadRequest(0, TEXT, 1))
    assert record.error == "connection refused"


async def test_the_first_model_of_the_list_is_found(http: aiohttp.ClientSession) -> None:
    async with serving(FakeServer()) as server:
        assert await ChatClient.find_model(http, server.url + "/v1/") == "fake-vlm"


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("http://h:1", "http://h:1"),
        ("http://h:1/v1", "http://h:1"),
        ("https://h/v1/?x=1", "https://h"),
        ("localhost:8000", "http://localhost:8000"),
        ("http://h/prefix/v1", "http://h/prefix"),
    ],
)
def test_addresses_are_understood_with_and_without_v1(given: str, base: str) -> None:
    assert base_url(given) == base


@pytest.mark.parametrize("url", ["ftp://h", "http://", "file:///etc"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="http://localhost:8000"):
        base_url(url)


def test_events_are_cut_right_wherever_the_bytes_are_split() -> None:
    wire = b': comment\r\n\r\ndata: {"a":1}\r\n\r\nevent: x\ndata:two\ndata: lines\n\ndata: [DONE]\n\n'
    expected = [b'{"a":1}', b"two\nlines", b"[DONE]"]
    for size in range(1, len(wire)):
        stream = EventStream()
        got = [data for i in range(0, len(wire), size) for data in stream.feed(wire[i : i + size])]
        assert got == expected
