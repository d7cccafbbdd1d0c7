"""Processor time of a request's life in our gateway, without sockets: what the features cost, and which of them.

    python benchmarks/gateway/exchange_cost.py [--body text] [--profile 40]

The backend is an object that answers at once; keys, limits, prices, queue, routing, metrics and the request log are real. The
first percentile of short batches is what an undisturbed core takes; the median is what this machine took just now.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import os
import pstats
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from foveal.gateway.config.load import load_config
from foveal.gateway.serving.gateway import Gateway
from foveal.gateway.wire.upstream import UpstreamHead
from foveal.observability.logs import configure_logging
from gateway.bodies import BODIES, write_bodies
from gateway.contenders import create_key, foveal_config

_ANSWER = (
    b'{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}}'
)
_BATCH = 3


class InstantAnswer:
    complete = True
    head = UpstreamHead(200, ((b"content-type", b"application/json"),))

    def __init__(self) -> None:
        self._rest = _ANSWER

    def take(self) -> bytes:
        rest, self._rest = self._rest, b""
        return rest

    async def chunks(self) -> AsyncIterator[bytes]:
        if self._rest:
            yield self.take()

    async def close(self) -> None: ...


class InstantClient:
    async def send(self, *arguments: Any) -> InstantAnswer:
        return InstantAnswer()

    async def aclose(self) -> None: ...

    def forget(self, url: str) -> None: ...


class Call:
    """A request without a socket."""

    endpoint, path, query, peer = "chat", b"/v1/chat/completions", b"", "127.0.0.1"
    disconnected = False

    def __init__(self, body: bytes, key: str) -> None:
        self.body = bytearray(body)
        self.headers = {
            b"host": b"gateway",
            b"content-type": b"application/json",
            b"authorization": b"Bearer " + key.encode(),
            b"content-length": b"%d" % len(body),
        }
        self.started = False
        self.received_s = self.body_done_s = 0.0

    def again(self) -> Call:
        self.started = False
        self.received_s = self.body_done_s = time.monotonic()
        return self

    def respond(self, status: int, headers: Any, body: bytes) -> None:
        if status != 200:
            raise RuntimeError(f"{status}: {body!r}")
        self.started = True


async def measure(config: Path, body: bytes, key: str, batches: int, lines: int) -> None:
    gateway = Gateway(lambda: load_config(config), client=InstantClient())
    await gateway.start()
    # The first answers of the health checks are in.
    await asyncio.sleep(0.3)
    serve = gateway._exchange
    calls = [Call(body, key) for _ in range(_BATCH)]

    async def run(number: int) -> None:
        for _ in range(number):
            for call in calls:
                await serve(call.again())  # type: ignore[arg-type]

    await run(100)
    taken = []
    for _ in range(batches):
        began = time.thread_time_ns()
        await run(1)
        taken.append((time.thread_time_ns() - began) / _BATCH / 1000)
    taken.sort()
    first, tenth, median = (taken[len(taken) * percent // 100] for percent in (1, 10, 50))
    print(f"{first:.0f} us (first percentile), {tenth:.0f} us (tenth), {median:.0f} us (median)")
    if lines:
        profile = cProfile.Profile(time.thread_time)
        profile.enable()
        await run(500)
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(lines)
    await gateway.close()


@contextlib.contextmanager
def log_to_nowhere() -> Iterator[None]:
    """The request log is written, but not to the terminal."""
    keep = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(keep, 2)
        os.close(keep)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--body", choices=sorted(BODIES), default="text")
    parser.add_argument("--batches", type=int, default=2000)
    parser.add_argument("--profile", type=int, default=0, help="lines of a profile")
    options = parser.parse_args()
    configure_logging("info", "json")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = foveal_config(0, 9, folder)
        key = create_key(config)
        body = write_bodies(folder)[options.body].read_bytes()
        with log_to_nowhere():
            uvloop.run(measure(config, body, key, options.batches, options.profile))


if __name__ == "__main__":
    main()
