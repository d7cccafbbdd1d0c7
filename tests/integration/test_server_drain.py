"""Shutting down: streams in flight finish, new requests are told to go elsewhere, the exit status tells which."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from typing import Any

import aiohttp
import pytest

from foveal.core.errors import ConfigurationError
from foveal.engine.server.config import ServerConfig
from foveal.engine.server.runner import Server, bind_socket
from foveal.protocol.sse import parse_events
from support.fake_engine import FakeEngine
from support.running_server import running_server

ASK = {"model": "fake-vlm", "messages": [{"role": "user", "content": "hi"}], "stream": True}


def config(**changes: Any) -> ServerConfig:
    return ServerConfig(port=0, access_log=False, **changes)


async def test_draining_finishes_streams_refuses_new_requests_and_exits_0() -> None:
    engine = FakeEngine(hold_after=3)
    async with running_server(engine, config()) as running, aiohttp.ClientSession(running.url) as session:
        streams = [await session.post("/v1/chat/completions", json=ASK) for _ in range(3)]
        running.server.request_stop()
        await _until_draining(running.server)
        async with session.get("/ready") as ready:
            assert (ready.status, (await ready.json())["status"]) == (503, "draining")
        async with session.post("/v1/chat/completions", json=ASK) as refused:
            assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        async with session.get("/live") as live:
            assert live.status == 200
        engine.release.set()
        for stream in streams:
            events = parse_events(await stream.read())
            assert events[-1]["choices"][0]["finish_reason"] == "stop"
        assert await running.exit_status == 0
    assert engine.aborted == []


async def test_what_outlives_the_grace_period_gets_an_explicit_error() -> None:
    engine = FakeEngine(hold_after=3)
    async with (
        running_server(engine, config(drain_grace_s=0.05)) as running,
        aiohttp.ClientSession(running.url) as session,
    ):
        stream = await session.post("/v1/chat/completions", json=ASK)
        whole = asyncio.create_task(session.post("/v1/chat/completions", json={**ASK, "stream": False}))
        await _until(lambda: len(engine.requests) == 2)
        running.server.request_stop()
        assert b'data: {"error":{"message":"the server shut down' in await stream.read()
        assert (await whole).status == 503
        assert await running.exit_status == 1
    assert len(engine.aborted) == 2
    assert engine.num_in_flight == 0


async def test_a_second_request_to_stop_does_not_wait() -> None:
    engine = FakeEngine(hold_after=0)
    async with (
        running_server(engine, config(drain_grace_s=3600)) as running,
        aiohttp.ClientSession(running.url) as session,
    ):
        asking = asyncio.create_task(session.post("/v1/chat/completions", json=ASK))
        await engine.holding.wait()
        running.server.request_stop()
        running.server.request_stop()
        assert (await asking).status == 503
        assert await running.exit_status == 1


async def test_a_taken_port_is_explained() -> None:
    with bind_socket("127.0.0.1", 0) as taken:
        taken.listen()
        server = Server(FakeEngine(), ServerConfig(port=taken.getsockname()[1]))
        with pytest.raises(ConfigurationError, match="Choose another with --host and --port"):
            await server.run()


PROGRAM = """
import asyncio, sys
from support.fake_engine import FakeEngine
from foveal.engine.server.config import ServerConfig
from foveal.engine.server.runner import serve
from foveal.observability.logs import configure_logging

async def main():
    configure_logging("warning")  # on stderr: stdout is what the test reads
    engine = FakeEngine(hold_after=2)
    def started(url):
        print(url, flush=True)
    async def release():
        await engine.holding.wait()
        print("holding", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        engine.release.set()
    task = asyncio.create_task(release())
    status = await serve(engine, ServerConfig(port=0), on_started=started)
    print("aborted", len(engine.aborted), flush=True)
    return status

import uvloop
sys.exit(uvloop.run(main()))
"""


async def test_sigterm_drains_a_real_process_with_zero_aborted_streams() -> None:
    paths = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    with process, contextlib.ExitStack() as on_failure:
        on_failure.callback(process.kill)
        url = (await asyncio.to_thread(process.stdout.readline)).strip()
        assert url.startswith("http://")
        async with aiohttp.ClientSession(url) as session:
            stream = await session.post("/v1/chat/completions", json=ASK)
            assert (await asyncio.to_thread(process.stdout.readline)).strip() == "holding"
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(30):
                while (await _status(session, "/ready")) != 503:
                    pass
            process.stdin.write("go\n")
            process.stdin.flush()
            events = parse_events(await stream.read())
        assert events[-1]["choices"][0]["finish_reason"] == "stop"
        output, errors = await asyncio.to_thread(process.communicate, None, 30)
        on_failure.pop_all()
    assert (process.returncode, output.strip()) == (0, "aborted 0"), errors


async def _status(session: aiohttp.ClientSession, path: str) -> int:
    async with session.get(path) as response:
        return response.status


async def _until_draining(server: Server) -> None:
    await _until(lambda: server.context.admission.in_flight.draining)


async def _until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0)
