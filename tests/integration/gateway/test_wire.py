"""Real sockets, both event loops, both sides of TLS: what goes in comes out."""

from __future__ import annotations

import asyncio
import hashlib
import io
import random
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop

from foveal.gateway.backends.backend import BackendSpec
from foveal.gateway.wire.hot_server import HotServer
from foveal.gateway.wire.incoming import Handler, Incoming
from foveal.gateway.wire.settings import WireConfig
from foveal.gateway.wire.upstream import UpstreamTimeouts
from foveal.gateway.wire.upstream_pool import PooledClient
from support.wire_harness import echo_app, request

Runner = Callable[[Coroutine[Any, Any, None]], None]
PATH = "/v1/chat/completions"


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    return asyncio.run if request.param == "asyncio" else uvloop.run


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context and a client's that trusts it."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder: Path = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    extra = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*command.split(), *extra], cwd=folder, check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return server, ssl.create_default_context(cafile=str(folder / "cert.pem"))


@asynccontextmanager
async def serve(
    handler: Handler, config: WireConfig | None = None, context: ssl.SSLContext | None = None
) -> AsyncIterator[HotServer]:
    server = HotServer(handler, echo_app, config or WireConfig())
    await server.start("127.0.0.1", 0, context)
    try:
        yield server
    finally:
        await server.close()


async def digest(incoming: Incoming) -> None:
    """A backend that says what it got, in pieces, and some of it back."""
    incoming.start(200, ((b"x-digest", hashlib.sha256(incoming.body).hexdigest().encode()),))
    for at in range(0, len(incoming.body), 300_000):
        await incoming.write(bytes(incoming.body[at : at + 300_000]))
    incoming.finish()


def relay(client: PooledClient, url: str) -> Handler:
    backend = BackendSpec("b", url, "m")

    async def handler(incoming: Incoming) -> None:
        # In three parts, as with a model name spliced in.
        body = memoryview(incoming.body)
        parts = [body[:10], body[10:50], body[50:]]
        answer = await client.send(backend, "POST", PATH, (), parts, UpstreamTimeouts())
        try:
            if answer.complete:
                incoming.respond(answer.head.status, answer.head.headers, answer.take())
                return
            incoming.start(answer.head.status, answer.head.headers)
            async for chunk in answer.chunks():
                await incoming.write(chunk)
            incoming.finish()
        finally:
            await answer.close()

    return handler


async def _bodies_arrive_whole(server_tls: ssl.SSLContext | None, client_tls: ssl.SSLContext | None) -> None:
    scheme = "http" if server_tls is None else "https"
    client = PooledClient(ssl_context=client_tls)
    noise = random.Random(5)
    sizes = [0, 1, 9, 10, 51, 4_000, 65_535, 65_536, 65_537, 200_000, 650_000, 4_000_000]
    async with (
        serve(digest, context=server_tls) as backend,
        serve(relay(client, f"{scheme}://127.0.0.1:{backend.port}"), context=server_tls) as gateway,
        aiohttp.ClientSession() as session,
    ):

        async def ask(size: int, chunked: bool) -> None:
            body = noise.randbytes(size)

            async def pieces() -> AsyncIterator[bytes]:
                for at in range(0, size, 100_001):
                    yield body[at : at + 100_001]

            url = f"{scheme}://127.0.0.1:{gateway.port}{PATH}"
            data: Any = pieces() if chunked else io.BytesIO(body)
            async with session.post(url, data=data, ssl=client_tls or True) as response:
                assert response.status == 200
                assert response.headers["x-digest"] == hashlib.sha256(body).hexdigest()
                assert await response.read() == body

        for _ in range(2):
            await asyncio.gather(*(ask(size, chunked) for size in sizes for chunked in (False, True)))
        assert gateway.stats.body_bytes == 0
        assert gateway.stats.busy == 0
    await client.aclose()


def test_bodies_of_every_size_arrive_whole_and_come_back_whole(run: Runner) -> None:
    run(_bodies_arrive_whole(None, None))


def test_so_they_do_over_tls_on_both_sides(run: Runner, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    run(_bodies_arrive_whole(*tls))


def test_a_backend_with_a_certificate_nobody_signed_is_a_connect_error(
    run: Runner, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    async def scenario() -> None:
        client = PooledClient(ssl_context=ssl.create_default_context())
        async with (
            serve(digest, context=tls[0]) as backend,
            serve(relay(client, f"https://127.0.0.1:{backend.port}")) as gateway,
            aiohttp.ClientSession() as session,
        ):
            response = await session.post(f"http://127.0.0.1:{gateway.port}{PATH}", data=b"x" * 100)
            assert response.status == 500
            assert client.num_open == 0

    run(scenario())


def test_a_client_that_sends_far_too_much_still_reads_the_refusal(run: Runner) -> None:
    async def scenario() -> None:
        async with serve(digest, WireConfig(max_body_bytes=1 << 20)) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            size = 30 << 20
            writer.write(b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (PATH.encode(), size))
            for _ in range(size >> 20):
                writer.write(b"x" * (1 << 20))
                await writer.drain()
            assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
            writer.close()
            assert server.stats.peak_body_bytes == 0

    run(scenario())


def test_mutilated_requests_break_nothing_and_leave_nothing(run: Runner) -> None:
    async def scenario() -> None:
        noise = random.Random(11)
        whole = (
            request(b"x" * 2000, extra=b"X-A: b\r\n")
            + request(b"y" * 2000, chunk=300)
            + request(path=b"/live", method=b"GET")
        )

        async def attack(port: int) -> None:
            data = bytearray(whole)
            for _ in range(noise.randrange(1, 6)):
                at = noise.randrange(len(data))
                choice = noise.randrange(3)
                if choice == 0:
                    data[at] = noise.randrange(256)
                elif choice == 1:
                    del data[at : at + noise.randrange(1, 200)]
                else:
                    data[at:at] = noise.choice(
                        [b"\r\n", b"\0", b"Content-Length: 5\r\n", b"0\r\n\r\n", data[: noise.randrange(1, 300)]]
                    )
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                for start in range(0, len(data), 1111):
                    writer.write(data[start : start + 1111])
                    await writer.drain()
                writer.write_eof()
                await reader.read()
            except ConnectionError:
                pass
            writer.close()

        async with serve(digest, WireConfig(linger_s=0.01)) as server:
            for _ in range(30):
                await asyncio.gather(*(attack(server.port) for _ in range(20)))
            async with aiohttp.ClientSession() as session:
                response = await session.post(f"http://127.0.0.1:{server.port}{PATH}", data=b"still there")
                assert response.headers["x-digest"] == hashlib.sha256(b"still there").hexdigest()
                response.close()
            assert await server.wait_idle(5)
            assert server.stats.body_bytes == 0

    run(scenario())


def test_draining_under_load_costs_no_request(run: Runner) -> None:
    async def scenario() -> None:
        answered = 0
        async with serve(digest) as server, aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{server.port}{PATH}"
            stop = asyncio.Event()

            async def ask() -> None:
                nonlocal answered
                while not stop.is_set():
                    async with session.post(url, data=b"x" * 100_000) as response:
                        assert response.status == 200
                        await response.read()
                    answered += 1

            clients = [asyncio.create_task(ask()) for _ in range(8)]
            while answered < 100:
                await asyncio.sleep(0)
            server.begin_drain()
            before = answered
            while answered < before + 100:
                await asyncio.sleep(0)
            stop.set()
            await asyncio.gather(*clients)
            server.close_listener()
            assert await server.wait_idle(5)

    run(scenario())


def test_a_client_that_vanishes_frees_what_it_held(run: Runner) -> None:
    async def scenario() -> None:
        started, cancelled = asyncio.Event(), asyncio.Event()

        async def handler(incoming: Incoming) -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        async with serve(handler) as server:
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(request(b"x" * 50_000))
                await started.wait()
                assert server.stats.body_bytes == 50_000
            await cancelled.wait()
            assert await server.wait_idle(5)
            assert server.stats.body_bytes == 0

    run(scenario())
