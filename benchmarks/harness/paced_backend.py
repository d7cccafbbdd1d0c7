"""An OpenAI server with a known capacity: so many slots, so long a service, answers made of words. For overload and chaos.

    python benchmarks/harness/paced_backend.py --port 9001 --slots 8 --service-ms 200 --log backend.log

A request takes between half and one and a half times the service time.

Requests beyond the slots wait in it (as in an engine's queue) and the time is told in Server-Timing as `queue`. Each request
leaves a line in the log when it arrives and when it ends, written at once, so that a killed process can be audited.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import time
from collections.abc import Callable

import httptools
import uvloop

TOKENS = 8
FIRST_SHARE = 0.25
"""Of the service time, until the first token."""


class Backend:
    def __init__(self, slots: int, service_s: float, log: str | None) -> None:
        self.slots = asyncio.Semaphore(slots)
        self._service_s = service_s
        self._chance = random.Random(os.getpid())
        self.serial = itertools.count()
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if log else None

    def draw_service_s(self) -> float:
        """Equal times would let all slots become free in one wave."""
        return self._service_s * self._chance.uniform(0.5, 1.5)

    def note(self, event: str, number: int, request_id: str) -> None:
        if self._log is not None:
            os.write(self._log, f"{event} {os.getpid()} {number} {request_id}\n".encode())


class Connection(asyncio.Protocol):
    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.fresh()

    def fresh(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.url, self.body, self.headers = b"", [], {}

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        if self.parser.get_method() == b"GET":
            self.whole(b'{"status":"ready","object":"list","data":[]}')
        else:
            self.task = asyncio.get_running_loop().create_task(self.answer(json.loads(b"".join(self.body))))

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.task is not None:
            self.task.cancel()

    async def answer(self, request: dict) -> None:
        backend, number = self.backend, next(self.backend.serial)
        request_id = self.headers.get(b"x-request-id", b"-").decode()
        backend.note("begin", number, request_id)
        told = False

        def end() -> None:
            # Before the last bytes go out: a kill may come between the two.
            nonlocal told
            told = True
            backend.note("end", number, request_id)

        arrived = time.monotonic()
        try:
            async with backend.slots:
                waited_ms = (time.monotonic() - arrived) * 1e3
                timing = b"server-timing: queue;dur=%.2f\r\n" % waited_ms
                if request.get("stream"):
                    await self.stream(timing, end)
                else:
                    await asyncio.sleep(backend.draw_service_s())
                    choice = {
                        "index": 0,
                        "message": {"role": "assistant", "content": "a " * TOKENS},
                        "finish_reason": "stop",
                    }
                    end()
                    self.whole(json.dumps({"id": "x", "choices": [choice], "usage": _usage()}).encode(), timing)
        finally:
            if not told:
                backend.note("left", number, request_id)
            self.task = None
        self.fresh()

    async def stream(self, timing: bytes, end: Callable[[], None]) -> None:
        service_s = self.backend.draw_service_s()
        await asyncio.sleep(service_s * FIRST_SHARE)
        head = (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n" + timing + b"transfer-encoding: chunked\r\n\r\n"
        )
        self.transport.write(head + _chunk(_event({"role": "assistant", "content": "a "})))
        for number in range(TOKENS - 1):
            await asyncio.sleep(service_s * (1 - FIRST_SHARE) / (TOKENS - 1))
            self.transport.write(_chunk(_event({"content": f"{number} "})))
        end()
        usage = b"data: " + json.dumps({"choices": [], "usage": _usage()}).encode() + b"\n\n"
        self.transport.write(_chunk(_event({}, "stop") + usage + b"data: [DONE]\n\n") + b"0\r\n\r\n")

    def whole(self, body: bytes, extra: bytes = b"") -> None:
        head = (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + extra + b"content-length: %d\r\n\r\n" % len(body)
        )
        self.transport.write(head + body)
        if self.task is None:
            self.fresh()


def _usage() -> dict[str, int]:
    return {"prompt_tokens": 16, "completion_tokens": TOKENS, "total_tokens": 16 + TOKENS}


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    return (
        b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}).encode() + b"\n\n"
    )


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--service-ms", type=float, default=200.0)
    parser.add_argument("--log", help="Append a line per request here.")
    options = parser.parse_args()
    backend = Backend(options.slots, options.service_ms / 1e3, options.log)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(backend), "127.0.0.1", options.port, reuse_address=True)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main())
