"""What a hostile or hurried client would send. Each gets the right status and a message with a remedy; the next request works.

    python benchmarks/acceptance/05_bad_input.py --model .demo/foveal-demo

The last part kills the engine process while it answers.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import struct
import sys
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from aiohttp import web
from PIL import Image
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from harness.record import write_result  # noqa: E402
from harness.server import Server, running_server  # noqa: E402

MODEL = "foveal-demo"


@dataclass(frozen=True)
class Outcome:
    case: str
    status: int
    expected: tuple[int, ...]
    message: str
    next_request_works: bool
    seconds: float

    @property
    def passed(self) -> bool:
        return self.status in self.expected and len(self.message) > 20 and self.next_request_works


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "PNG")
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in about 11 MB: 10.8 GB when decoded."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    compressor = zlib.compressobj(9)
    row = bytes(1 + 60_000 * 3)
    data = b"".join(compressor.compress(row) for _ in range(2_000)) + compressor.flush()
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def chat(*urls: str, text: Any = "What is it?", **fields: Any) -> dict[str, Any]:
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content = [*images, {"type": "text", "text": text}]
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 4, **fields}


@contextlib.asynccontextmanager
async def hostile_site() -> AsyncIterator[str]:
    """A site on loopback that redirects to a private address, drips, or never ends."""

    async def redirect(_: web.Request) -> web.Response:
        raise web.HTTPFound("http://169.254.169.254/latest/meta-data/")

    async def slow(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"Content-Type": "image/png"})
        await reply.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(60):
                await reply.write(b"x")
                await asyncio.sleep(1)
        return reply

    app = web.Application()
    app.add_routes([web.get("/redirect", redirect), web.get("/slow", slow)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


class Client:
    def __init__(self, session: aiohttp.ClientSession, server: Server) -> None:
        self._session = session
        self.server = server

    async def send(self, body: Any, *, path: str = "/v1/chat/completions") -> tuple[int, str]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            async with self._session.post(
                self.server.url + path, data=data, headers={"Content-Type": "application/json"}
            ) as reply:
                text = await reply.text()
                status = reply.status
        except aiohttp.ClientError as error:
            return 0, f"no answer: {type(error).__name__}"
        try:
            return status, json.loads(text)["error"]["message"]
        except (ValueError, KeyError):
            return status, text

    async def works(self) -> bool:
        return (await self.send(chat(data_url(png()))))[0] == 200

    async def case(self, name: str, body: Any, *expected: int, path: str = "/v1/chat/completions") -> Outcome:
        started = time.perf_counter()
        status, message = await self.send(body, path=path)
        seconds = time.perf_counter() - started
        return Outcome(name, status, expected, message[:300], await self.works(), seconds)


async def bad_requests(client: Client, site: str) -> list[Outcome]:
    good = data_url(png())
    no_schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no"}}}
    cases: list[Callable[[], Awaitable[Outcome]]] = [
        lambda: client.case("truncated PNG", chat(data_url(png()[:60])), 400),
        lambda: client.case("not an image", chat(data_url(b"hello")), 400),
        lambda: client.case("broken base64", chat("data:image/png;base64,@@@"), 400),
        lambda: client.case("decompression bomb", chat(data_url(bomb())), 413),
        lambda: client.case("body of 100 MB", b'{"model":"' + b"x" * 100_000_000 + b'"}', 413),
        lambda: client.case("40 images", chat(*[good] * 40), 400),
        lambda: client.case("no messages", {"model": MODEL, "messages": []}, 400),
        lambda: client.case("empty message", {"model": MODEL, "messages": [{"role": "user", "content": ""}]}, 400),
        lambda: client.case("empty object", {}, 400),
        lambda: client.case("not JSON", b"{not json", 400),
        lambda: client.case("JSON of the wrong kind", b"[1, 2]", 400),
        lambda: client.case("messages as a string", {"model": MODEL, "messages": "hi"}, 400),
        lambda: client.case("text as a number", chat(text=5), 400),
        lambda: client.case("temperature as a string", chat(temperature="hot"), 400),
        lambda: client.case("negative max_tokens", chat(max_tokens=-1), 400),
        lambda: client.case("n of 1,000", chat(n=1000), 400),
        lambda: client.case("unknown model", {**chat(), "model": "gpt-9"}, 404),
        lambda: client.case("prompt over the context", chat(text="word " * 30_000), 400),
        lambda: client.case("impossible JSON schema", chat(response_format=no_schema), 400),
        lambda: client.case("loopback URL", chat("http://127.0.0.1:80/x.png"), 400),
        lambda: client.case("decimal loopback URL", chat("http://2130706433/x.png"), 400),
        lambda: client.case("IPv6-mapped URL", chat("http://[::ffff:10.0.0.1]/x.png"), 400),
        lambda: client.case("metadata address", chat("http://169.254.169.254/latest"), 400),
        lambda: client.case("file URL", chat("file:///etc/passwd"), 400),
        lambda: client.case("unknown route", {}, 404, path="/v1/nothing"),
    ]  # fmt: skip
    return [await run() for run in cases]


async def fetch_cases(client: Client, site: str) -> list[Outcome]:
    """Against a server whose policy admits this loopback site: what comes after the first address check."""
    return [
        await client.case("redirect to a private range", chat(f"{site}/redirect"), 400),
        await client.case("URL that drips one byte a second", chat(f"{site}/slow"), 400, 504),
    ]


async def killed_engine(client: Client) -> list[Outcome]:
    """`kill -9` while a stream and a plain request are running."""
    parent = psutil.Process(client.server.process.pid)
    engine = next(p for p in parent.children(recursive=True) if "foveal.engine.engine_process" in " ".join(p.cmdline()))
    running = asyncio.create_task(client.send(chat(text="Count.", max_tokens=2000, ignore_eos=True)))
    stream = asyncio.create_task(client.send(chat(text="Count.", max_tokens=2000, ignore_eos=True, stream=True)))
    await asyncio.sleep(2)
    started = time.perf_counter()
    engine.kill()
    status, message = await running
    _, streamed = await stream
    error_s = time.perf_counter() - started
    while client.server.get("/ready")[0] != 200 and time.perf_counter() - started < 120:
        await asyncio.sleep(0.1)
    ready_s = time.perf_counter() - started
    ready = client.server.get("/ready")[0]
    works = await client.works()
    return [
        Outcome("engine killed, plain request", status, (500, 503), message, works, error_s),
        Outcome("engine killed, stream", 500 if '"error"' in streamed else 0, (500,), streamed[-300:], works, error_s),
        Outcome("engine killed, comes back", ready, (200,), f"ready again in {ready_s:.1f} s", works, ready_s),
    ]  # fmt: skip


async def run(model: str, console: Console) -> tuple[list[Outcome], dict[str, int]]:
    timeout = aiohttp.ClientTimeout(total=180)
    async with hostile_site() as site, aiohttp.ClientSession(timeout=timeout) as session:
        with running_server(model, "--served-model-name", MODEL) as server:
            client = Client(session, server)
            await client.works()
            family = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
            before = sum(p.memory_info().rss for p in family) >> 20
            outcomes = await bad_requests(client, site)
            after = sum(p.memory_info().rss for p in family) >> 20
            outcomes += await killed_engine(client)
        flags = [
            "--fetch-allow-private",
            "--fetch-allowed-domain",
            "127.0.0.1",
            "--fetch-any-port",
            "--fetch-timeout",
            "3",
        ]
        with running_server(model, "--served-model-name", MODEL, *flags) as server:
            outcomes += await fetch_cases(Client(session, server), site)
    return outcomes, {"rss_before_mib": before, "rss_after_mib": after}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    options = parser.parse_args()
    console = Console(width=160)
    outcomes, memory = asyncio.run(run(options.model, console))
    table = Table(title="bad input")
    for column in ("case", "status", "expected", "next works", "s", "message"):
        table.add_column(column, overflow="fold")
    for outcome in outcomes:
        style = "green" if outcome.passed else "red"
        table.add_row(
            outcome.case,
            f"[{style}]{outcome.status}[/]",
            "/".join(map(str, outcome.expected)),
            str(outcome.next_request_works),
            f"{outcome.seconds:.2f}",
            outcome.message.replace("[", "\\["),
        )
    console.print(table)
    console.print(memory)
    path = write_result("acceptance_05_bad_input", {"memory": memory, "outcomes": [asdict(o) for o in outcomes]})
    console.print(f"written to {path}")
    if not all(outcome.passed for outcome in outcomes):
        raise SystemExit("some cases failed")


if __name__ == "__main__":
    main()
