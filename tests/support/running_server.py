"""A real server on a free loopback port, in the event loop of the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from foveal.core.clock import Clock
from foveal.engine.api import EngineClient
from foveal.engine.server.config import ServerConfig
from foveal.engine.server.runner import Server
from foveal.protocol.remote_image.image_fetcher import ImageFetcher

__all__ = ["RunningServer", "running_server"]


@dataclass
class RunningServer:
    url: str
    """Without a path: "http://127.0.0.1:12345"."""
    server: Server
    exit_status: asyncio.Task[int] = field(repr=False)


@asynccontextmanager
async def running_server(
    engine: EngineClient,
    config: ServerConfig | None = None,
    *,
    clock: Clock | None = None,
    fetcher: ImageFetcher | None = None,
) -> AsyncIterator[RunningServer]:
    """Forces the end of what is still in flight when the block ends."""
    config = config or ServerConfig(port=0, access_log=False)
    server = Server(engine, config, clock, fetcher)
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(server.run(started.set_result, handle_signals=False))
    await asyncio.wait({started, running}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    try:
        yield RunningServer(started.result(), server, running)
    finally:
        server.request_stop()
        server.request_stop()
        await running
