"""Our sockets without our features: what is left of the overhead is the features'.

python benchmarks/gateway/wire_only.py PORT BACKEND_PORT
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop

from foveal.gateway.backends.backend import BackendSpec
from foveal.gateway.wire.hot_server import HotServer
from foveal.gateway.wire.incoming import Incoming
from foveal.gateway.wire.settings import WireConfig
from foveal.gateway.wire.upstream import UpstreamTimeouts
from foveal.gateway.wire.upstream_pool import PooledClient

_TIMEOUTS = UpstreamTimeouts()
_HEADERS = ((b"content-type", b"application/json"),)


async def no_pages(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def main() -> None:
    client = PooledClient()
    backend = BackendSpec("mock", f"http://127.0.0.1:{sys.argv[2]}", "m")

    async def relay(incoming: Incoming) -> None:
        answer = await client.send(backend, "POST", "/v1/chat/completions", _HEADERS, [incoming.body], _TIMEOUTS)
        if answer.complete:
            incoming.respond(answer.head.status, answer.head.headers, answer.take())
            return
        incoming.start(answer.head.status, answer.head.headers)
        async for chunk in answer.chunks():
            await incoming.write(chunk)
        incoming.finish()

    server = HotServer(relay, no_pages, WireConfig())
    await server.start("127.0.0.1", int(sys.argv[1]))
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
