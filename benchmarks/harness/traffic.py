"""Requests to a gateway and how each of them ended, as its client sees it."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp

__all__ = ["Ended", "ask", "closed_loop", "open_loop", "open_session", "quantile", "tally"]

Kind = Literal["success", "error", "timeout", "broken"]
"""error and timeout are explicit: a status with a body, or an event in a stream. broken is what must never be."""


@dataclass(frozen=True, slots=True)
class Ended:
    kind: Kind
    status: int
    code: str
    seconds: float
    first_byte_s: float | None
    label: str = ""
    timing_ms: dict[str, float] = field(default_factory=dict)
    """Server-Timing: the gateway's stages, the backend's as backend-NAME."""
    retry_after_s: float | None = None
    text: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    """Names in lower case."""
    at_s: float = field(default_factory=time.monotonic)
    """When it ended."""


def open_session(url: str, timeout_s: float = 120.0) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        url, timeout=aiohttp.ClientTimeout(total=timeout_s), connector=aiohttp.TCPConnector(limit=0)
    )


async def ask(
    session: aiohttp.ClientSession,
    body: dict[str, Any],
    headers: dict[str, str] | None = None,
    label: str = "",
    path: str = "/v1/chat/completions",
) -> Ended:
    """Never raises for what the server does."""
    started = time.monotonic()
    status, first_byte_s, seen, text = 0, None, {}, b""
    try:
        async with session.post(path, json=body, headers=headers or {}) as response:
            status, seen = response.status, {name.lower(): value for name, value in response.headers.items()}
            async for chunk in response.content.iter_any():
                if first_byte_s is None:
                    first_byte_s = time.monotonic() - started
                text += chunk
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return Ended("broken", status, type(error).__name__, time.monotonic() - started, first_byte_s, label)
    kind, code = _verdict(status, text, bool(body.get("stream")))
    retry_after = seen.get("retry-after")
    return Ended(
        kind,
        status,
        code,
        time.monotonic() - started,
        first_byte_s,
        label,
        _timing(seen.get("server-timing", "")),
        float(retry_after) if retry_after else None,
        text,
        seen,
    )


def _verdict(status: int, text: bytes, stream: bool) -> tuple[Kind, str]:
    if status != 200:
        try:
            code = json.loads(text)["error"]["code"] or str(status)
        except (ValueError, KeyError, TypeError):
            return "broken", f"{status} without an error body"
        return ("timeout" if status in (408, 504) else "error"), code
    if not stream:
        try:
            return ("success", "") if json.loads(text)["choices"] else ("broken", "no choices")
        except (ValueError, KeyError):
            return "broken", "half JSON"
    if text.rstrip().endswith(b"data: [DONE]") and b'data: {"error"' not in text:
        return "success", ""
    last = text.rstrip().rsplit(b"\n\n", 1)[-1]
    if last.startswith(b'data: {"error"'):
        code = json.loads(last.removeprefix(b"data: "))["error"]["code"]
        return ("timeout" if code == "timeout" else "error"), code
    return "broken", "stream without an end"


def _timing(header: str) -> dict[str, float]:
    stages: dict[str, float] = {}
    for part in header.split(","):
        name, _, duration = part.strip().partition(";dur=")
        if duration:
            stages[name] = float(duration)
    return stages


async def closed_loop(request: Callable[[], Awaitable[Ended]], clients: int, seconds: float) -> list[Ended]:
    """`clients` that each send the next request when the last one has ended."""
    ended: list[Ended] = []
    until = time.monotonic() + seconds

    async def client() -> None:
        while time.monotonic() < until:
            ended.append(await request())

    await asyncio.gather(*[client() for _ in range(clients)])
    return ended


async def open_loop(
    request: Callable[[str], Awaitable[Ended]], rates: dict[str, float], seconds: float, seed: int = 1
) -> list[Ended]:
    """Poisson arrivals of each label at its rate per second, whether or not earlier ones have ended."""
    chance = random.Random(seed)
    arrivals: list[tuple[float, str]] = []
    for label, rate in rates.items():
        at = chance.expovariate(rate)
        while at < seconds:
            arrivals.append((at, label))
            at += chance.expovariate(rate)
    arrivals.sort()
    started = time.monotonic()
    tasks: list[asyncio.Task[Ended]] = []
    for at, label in arrivals:
        delay = started + at - time.monotonic()
        if delay > 0:
            await asyncio.sleep(delay)
        tasks.append(asyncio.ensure_future(request(label)))
    return list(await asyncio.gather(*tasks))


def quantile(values: Sequence[float], q: float) -> float:
    """Nearest rank; 0 for no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else 0.0


def tally(ended: Sequence[Ended]) -> dict[str, int]:
    """How many of each kind; explicit errors by their code."""
    return dict(Counter(one.kind if not one.code else f"{one.kind}:{one.code}" for one in ended))
