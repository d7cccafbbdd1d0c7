"""An OpenAI-compatible server whose answers and timing a test dictates."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from foveal.core.clock import ManualClock

WORDS_OVERHEAD = 10
"""Tokens that the fake chat template adds; each word is one token."""


class WatchedClock(ManualClock):
    """Lets the server wait until the client has looked at the clock, so that no test needs to sleep."""

    def __init__(self) -> None:
        super().__init__()
        self._looked = asyncio.Event()

    def now_s(self) -> float:
        self._looked.set()
        return super().now_s()

    def expect_look(self) -> None:
        self._looked.clear()

    async def looked(self) -> None:
        await asyncio.wait_for(self._looked.wait(), 5)


@dataclass
class FakeServer:
    """`gaps_s` is when each token comes, relative to the one before (only with a clock)."""

    url: str = ""
    clock: WatchedClock | None = None
    gaps_s: tuple[float, ...] = ()
    status: int = 200
    error_code: str = "overloaded"
    fail_first: int = 0
    """Probes to let pass before `status` takes effect."""
    break_after: int | None = None
    """Drop the connection after so many tokens."""
    error_event_after: int | None = None
    report_usage: bool = True
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "fake-vlm", "object": "model"}]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        if self.status != 200 and len(self.bodies) > self.fail_first:
            return web.json_response({"error": {"message": "no", "code": self.error_code}}, status=self.status)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await self._event(response, {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        count = body["max_tokens"]
        for i in range(count):
            if i == self.error_event_after:
                await self._event(response, {"error": {"message": "gone", "code": "engine_dead"}})
                return response
            if i == self.break_after:
                assert request.transport is not None
                request.transport.close()
                return response
            if self.clock is not None:
                self.clock.advance(self.gaps_s[i])
            await self._event(response, {"choices": [{"index": 0, "delta": {"content": f"t{i} "}}]})
        if self.report_usage:
            words = sum(len(part["text"].split()) for part in body["messages"][0]["content"] if part["type"] == "text")
            usage = {"prompt_tokens": words + WORDS_OVERHEAD, "completion_tokens": count}
            usage["prompt_tokens_details"] = {"cached_tokens": 3}  # type: ignore[assignment]
            await self._event(response, {"choices": [], "usage": usage})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _event(self, response: web.StreamResponse, payload: dict[str, Any]) -> None:
        if self.clock is not None:
            self.clock.expect_look()
        await response.write(b"data: " + json.dumps(payload).encode() + b"\n\n")
        if self.clock is not None:
            await self.clock.looked()


@contextlib.asynccontextmanager
async def serving(server: FakeServer) -> AsyncIterator[FakeServer]:
    """Serve on a free loopback port."""
    app = web.Application(client_max_size=2**26)
    app.router.add_get("/v1/models", server.models)
    app.router.add_post("/v1/chat/completions", server.chat)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()
