"""The thinnest OpenAI backend: reads a request, answers at once. It must never be what is measured.

    python benchmarks/gateway/mock_backend.py PORT

GET /count tells "bytes requests" of chat requests since the last /count.
"""

from __future__ import annotations

import asyncio
import json
import sys

import httptools
import uvloop

__all__: list[str] = []


def _answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


_CHOICE = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
_CHAT = _answer(
    json.dumps(
        {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [_CHOICE],
            "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
        },
        separators=(",", ":"),
    ).encode()
)
_CARD = {
    "id": "m",
    "object": "model",
    "created": 1,
    "owned_by": "vllm",
    "root": "m",
    "parent": None,
    "max_model_len": 8192,
}
_MODELS = _answer(json.dumps({"object": "list", "data": [_CARD]}).encode())
# What smg and vllm-router ask for before they take a backend.
_INFO = _answer(
    json.dumps({"model_path": "m", "served_model_name": "m", "is_generation": True, "version": "0.33.0"}).encode()
)


_taken = [0, 0]
"""Bytes and chat requests since they were last asked for."""


class Connection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)
        self._path = b""

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path = url

    def on_body(self, body: bytes) -> None:
        _taken[0] += len(body)

    def on_message_complete(self) -> None:
        path, write = self._path, self._transport.write  # type: ignore[attr-defined]
        if b"chat" in path:
            _taken[1] += 1
            write(_CHAT)
        elif b"count" in path:
            write(_answer(b"%d %d" % tuple(_taken)))
            _taken[:] = 0, 0
        else:
            write(_MODELS if b"models" in path else _INFO)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
