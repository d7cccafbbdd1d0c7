"""Calls an ASGI application without a network: exact control over body chunks and disconnects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Answer", "asgi_call"]


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False
    chunks_read: int = 0
    """How much of the request body the application asked for."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]


async def asgi_call(
    app: Any,
    method: str,
    path: str,
    body: Any = None,
    *,
    headers: Mapping[str, str] | None = None,
    chunks: Iterable[bytes] | None = None,
    disconnect: asyncio.Event | None = None,
) -> Answer:
    """`body` is sent as JSON (bytes as they are) with Content-Length, or `chunks` without one.

    When `disconnect` is set, the client goes away.
    """
    sent: dict[str, str] = {"host": "test", "content-type": "application/json"}
    if chunks is None:
        payload = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        sent["content-length"] = str(len(payload))
        chunks = [payload]
    sent.update(headers or {})
    answer = Answer()
    pending = iter(chunks)
    finished = False

    async def receive() -> dict[str, Any]:
        nonlocal finished
        if not finished:
            chunk = next(pending, None)
            answer.chunks_read += chunk is not None
            finished = chunk is None or body is not None
            return {"type": "http.request", "body": chunk or b"", "more_body": not finished}
        await (disconnect or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {key.decode().lower(): value.decode() for key, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")
            answer.complete = not message.get("more_body", False)

    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(key.lower().encode(), value.encode("latin-1")) for key, value in sent.items()],
        "client": ("127.0.0.1", 1),
        "server": ("test", 80),
    }
    await app(scope, receive, send)
    return answer
