"""What one writes in half an hour: Starlette and aiohttp, no features. A yardstick, not a gateway.

python benchmarks/gateway/bare_proxy.py PORT BACKEND_PORT
"""

from __future__ import annotations

import sys

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_session: list[aiohttp.ClientSession] = []


async def chat(request: Request) -> Response:
    if not _session:
        _session.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False))
    body = await request.body()
    url = f"http://127.0.0.1:{sys.argv[2]}/v1/chat/completions"
    async with _session[0].post(url, data=body, headers={"content-type": "application/json"}) as answer:
        return Response(await answer.read(), answer.status, media_type="application/json")


if __name__ == "__main__":
    app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
    uvicorn.run(app, port=int(sys.argv[1]), log_level="error", loop="uvloop", http="httptools", access_log=False)
