"""The pooled client against a scripted backend on loopback."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest

from foveal.core.errors import ConfigurationError
from foveal.gateway.backends.backend import BackendSpec
from foveal.gateway.wire.upstream import UpstreamError, UpstreamTimeouts
from foveal.gateway.wire.upstream_answer import UpstreamAnswer
from foveal.gateway.wire.upstream_pool import PoolConfig, PooledClient
from support.scripted_backend import Conversation, scripted_backend

HEADERS = ((b"content-type", b"application/json"), (b"x-request-id", b"7"))


@pytest.fixture
async def client() -> AsyncIterator[PooledClient]:
    client = PooledClient()
    yield client
    await client.aclose()


async def post(
    client: PooledClient, spec: BackendSpec, *body: bytes | bytearray | memoryview, **timeouts: float
) -> UpstreamAnswer:
    return await client.send(spec, "POST", "/v1/chat/completions", HEADERS, body, UpstreamTimeouts(**timeouts))


async def serve_forever(talk: Conversation) -> None:
    while True:
        head, body = await talk.read_request()
        talk.answer(b"%d " % len(body) + head)


async def test_all_connections_with_tls_share_one_context(
    client: PooledClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang_up(talk: Conversation) -> None:
        """No TLS here."""

    made = []
    make = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda: made.append(make()) or made[-1])
    async with scripted_backend(hang_up) as backend:
        spec = BackendSpec("secure", f"https://127.0.0.1:{backend.port}", "m")
        for _ in range(3):
            with pytest.raises(UpstreamError):
                await post(client, spec, b"{}")
    assert (backend.connections, len(made)) == (3, 1)


async def test_the_parts_of_a_body_arrive_as_one(client: PooledClient) -> None:
    async def script(talk: Conversation) -> None:
        head, body = await talk.read_request()
        talk.answer(head + body)

    async with scripted_backend(script) as backend:
        image = bytearray(b"i" * 3_000_000)
        answer = await post(client, backend.spec, b'{"model":"', b"x", memoryview(image)[:-1], b"}")
        received = b"".join([chunk async for chunk in answer.chunks()])
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % backend.port)
    assert b"x-request-id: 7" in head
    assert body == b'{"model":"x' + b"i" * 2_999_999 + b"}"


async def test_connections_are_used_again(client: PooledClient) -> None:
    async with scripted_backend(serve_forever) as backend:
        for _ in range(5):
            answer = await post(client, backend.spec, b"{}")
            assert answer.complete
        assert backend.connections == 1
        assert client.num_idle(backend.spec.url) == 1
        await asyncio.gather(*(post(client, backend.spec, b"{}") for _ in range(3)))
        assert backend.connections == 3


async def test_a_connection_the_backend_closed_meanwhile_costs_no_request(client: PooledClient) -> None:
    """The classic race: our request and the backend's goodbye cross each other."""

    async def script(talk: Conversation) -> None:
        await talk.read_request()
        talk.answer(b"1")
        if talk.number == 1:
            await talk.reader.readexactly(10)
            return
        await talk.gone()

    async with scripted_backend(script) as backend:
        await post(client, backend.spec, b"{}")
        answer = await post(client, backend.spec, b"{}")
        assert answer.take() == b"1"
        assert backend.connections == 2


async def test_a_request_that_broke_a_new_connection_is_not_repeated(client: PooledClient) -> None:
    async def script(talk: Conversation) -> None:
        await talk.read_request()

    async with scripted_backend(script) as backend:
        with pytest.raises(UpstreamError) as raised:
            await post(client, backend.spec, b"{}")
        assert raised.value.stage == "first_byte"
        assert backend.connections == 1


async def test_an_idle_connection_that_the_backend_closes_is_forgotten(client: PooledClient) -> None:
    async def script(talk: Conversation) -> None:
        await talk.read_request()
        talk.answer()

    async with scripted_backend(script) as backend:
        await post(client, backend.spec, b"{}")
        while client.num_open:
            await asyncio.sleep(0)
        assert client.num_idle(backend.spec.url) == 0
        await post(client, backend.spec, b"{}")
        assert backend.connections == 2


async def test_old_idle_connections_are_not_used(client: PooledClient) -> None:
    client = PooledClient(PoolConfig(idle_s=-1))
    async with scripted_backend(serve_forever) as backend:
        await post(client, backend.spec, b"{}")
        await post(client, backend.spec, b"{}")
        assert backend.connections == 2
        await client.aclose()


async def test_a_cancelled_request_breaks_its_connection(client: PooledClient) -> None:
    gone = asyncio.Event()
    asked = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.read_request()
        asked.set()
        await talk.gone()
        gone.set()

    async with scripted_backend(script) as backend:
        task = asyncio.create_task(post(client, backend.spec, b"{}"))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone.wait()
        assert client.num_open == 0


async def test_a_stream_closed_early_tells_the_backend(client: PooledClient) -> None:
    gone = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.read_request()
        talk.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
        await talk.gone()
        gone.set()

    async with scripted_backend(script) as backend:
        answer = await post(client, backend.spec, b"{}")
        assert answer.take() == b"a"
        assert not answer.complete
        await answer.close()
        await gone.wait()


async def test_nobody_listening_is_a_connect_error(client: PooledClient) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        spec = BackendSpec("a", f"http://127.0.0.1:{taken.getsockname()[1]}", "m")
        with pytest.raises(UpstreamError) as raised:
            await post(client, spec, b"{}")
    assert (raised.value.stage, raised.value.timed_out) == ("connect", False)


async def test_a_name_that_does_not_resolve_is_a_connect_error(
    client: PooledClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*arguments: Any, **options: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fail)
    with pytest.raises(UpstreamError, match="no-such-host"):
        await post(client, BackendSpec("a", "http://no-such-host:1", "m"), b"{}")


async def test_a_connect_that_takes_too_long_is_a_time_out(
    client: PooledClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*arguments: Any, **options: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", never)
    with pytest.raises(UpstreamError) as raised:
        await post(client, BackendSpec("a", "http://127.0.0.1:1", "m"), b"{}", connect_s=0.001)
    assert (raised.value.stage, raised.value.timed_out) == ("connect", True)


async def test_a_backend_that_left_loses_its_idle_connections(client: PooledClient) -> None:
    async with scripted_backend(serve_forever) as backend:
        await post(client, backend.spec, b"{}")
        client.forget(backend.spec.url)
        await asyncio.sleep(0)
        assert client.num_open == 0


@pytest.mark.parametrize(
    "url", ["127.0.0.1:80", "ftp://a", "http://", "http://a:x", "http://u:p@a", "http://a/v1", "http://a?b"]
)
async def test_an_url_that_cannot_be_meant_is_refused(client: PooledClient, url: str) -> None:
    with pytest.raises(ConfigurationError, match="http://host:port"):
        await post(client, BackendSpec("a", url, "m"), b"{}")


@pytest.mark.parametrize("field", [(b"x", b"1\r\nb: 2"), (b"x\r\ny", b"1"), (b"x", b"1\nb: 2")])
async def test_a_field_with_a_line_break_is_never_sent(client: PooledClient, field: tuple[bytes, bytes]) -> None:
    async with scripted_backend(serve_forever) as backend:
        with pytest.raises(ValueError, match="line break"):
            await client.send(backend.spec, "POST", "/", (field,), (b"{}",), UpstreamTimeouts())
        assert backend.connections == 0
