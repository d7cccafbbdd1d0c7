"""A web server with pictures, redirects and traps, reachable by a name that only a fake resolver knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from foveal.protocol.remote_image.fetch_config import FetchConfig
from foveal.protocol.remote_image.image_fetcher import ImageFetcher
from support.pictures import png

__all__ = ["Site", "picture_site"]


class Site:
    """A web server on loopback, reachable as http://pictures.test:<port> through a fake resolver."""

    def __init__(self) -> None:
        self.port = 0
        self.served: list[str] = []
        self.hang = asyncio.Event()
        self.answers: dict[str, list[str]] = {"pictures.test": ["127.0.0.1"]}
        self.resolved: list[str] = []

    async def resolve(self, host: str, port: int) -> list[str]:
        self.resolved.append(host)
        if host not in self.answers:
            raise OSError("no such host")
        return self.answers[host]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.served.append(request.path)
        kind = request.path.strip("/")
        if kind == "redirect":
            raise web.HTTPFound(request.query["to"])
        if kind == "loop":
            raise web.HTTPFound("/loop")
        if kind == "missing":
            raise web.HTTPNotFound
        if kind == "page":
            return web.Response(text="<html>", content_type="text/html")
        if kind == "slow":
            response = web.StreamResponse(headers={"Content-Type": "image/png"})
            await response.prepare(request)
            await response.write(b"\x89PNG")
            await self.hang.wait()
            return response
        if kind == "endless":
            response = web.StreamResponse(headers={"Content-Type": "image/png"})
            await response.prepare(request)
            while not self.hang.is_set():
                await response.write(bytes(65536))
            return response
        return web.Response(
            body=png(), content_type="image/png", headers={"X-Cookie": request.headers.get("Cookie", "")}
        )

    def url(self, path: str) -> str:
        return f"http://pictures.test:{self.port}{path}"

    def fetcher(self, max_bytes: int = 1 << 20, **config: Any) -> ImageFetcher:
        """Loopback counts as public here, so that everything else can be seen to be refused."""
        settings = FetchConfig(**{"allowed_ports": (), "timeout_s": 30.0, **config})
        return ImageFetcher(settings, max_bytes, self.resolve, lambda address: address == "127.0.0.1")


@asynccontextmanager
async def picture_site() -> AsyncIterator[Site]:
    site = Site()
    application = web.Application()
    application.router.add_get("/{path:.*}", site.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    site.port = runner.addresses[0][1]
    try:
        yield site
    finally:
        site.hang.set()
        await runner.cleanup()
