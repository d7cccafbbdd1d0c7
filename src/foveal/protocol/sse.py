"""Server-sent events as OpenAI frames them: `data: {json}`, a blank line, and `data: [DONE]` at the end."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["DONE", "SSE_CONTENT_TYPE", "event", "parse_events"]

SSE_CONTENT_TYPE = "text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"

_encoder = msgspec.json.Encoder()


def event(payload: object) -> bytes:
    """One event. JSON has no raw newline, so that one `data:` line is enough."""
    return b"data: " + _encoder.encode(payload) + b"\n\n"


def parse_events(body: bytes) -> list[Any]:
    """All JSON payloads of a finished stream, without [DONE]. Raises ValueError if the stream has no such end."""
    lines = [line for line in body.split(b"\n\n") if line]
    if not lines or lines[-1] != b"data: [DONE]":
        raise ValueError("the stream does not end with data: [DONE]")
    return [msgspec.json.decode(line.removeprefix(b"data: ")) for line in lines[:-1]]
