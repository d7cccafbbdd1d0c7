"""One JSON line per request, and a warning with the waterfall for a slow one.

A line is encoded directly and written many at a time: a general logger takes ten times as long per line, on the loop that
serves (docs/decisions/0023). Never holds any of the body.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

import msgspec

from foveal.observability.exchange_record import ExchangeRecord
from foveal.observability.logs import LogFormat
from foveal.observability.waterfall import Waterfall

__all__ = ["RequestLog"]

_MAX_LINES = 256


class RequestLog:
    """Lines wait for `flush`: call it each second and at the end. Full buffers are written at once."""

    def __init__(
        self,
        stream: TextIO,
        log_format: LogFormat = "json",
        *,
        access: bool = True,
        slow_s: float | None = 10.0,
        wall_time_s: Callable[[], float],
    ) -> None:
        """`access`: a line per request. `slow_s`: requests longer than this get a warning; None for none."""
        self._stream = stream
        self._format = log_format
        self._access = access
        self._slow_s = slow_s
        self._wall_time_s = wall_time_s
        self._lines: list[bytes] = []
        self._second, self._second_text = 0, ""
        self._encode = msgspec.json.Encoder().encode

    def write(self, record: ExchangeRecord, waterfall: Waterfall) -> bool:
        """Returns whether the request was slow: longer than the limit, the client's upload not counted."""
        seconds = waterfall.last_s - waterfall.body_done_s
        is_slow = self._slow_s is not None and seconds > self._slow_s
        if is_slow or self._access:
            line = _Line(
                "slow request" if is_slow else "request",
                "warning" if is_slow else "info",
                self._timestamp(),
                record.request_id,
                record.path,
                record.status,
                record.outcome,
                round(1000 * seconds, 2),
                record.model,
                record.tenant,
                record.priority.name,
                record.backend,
                record.body_bytes,
                record.prompt_tokens,
                record.completion_tokens,
                record.code,
                record.served_model if record.served_model != record.model else "",
                record.num_images,
                record.vision_tokens,
                record.attempts,
                record.cache,
                record.traceparent[3:35],
                _milliseconds(waterfall) if is_slow else {},
            )
            self._lines.append(self._encode(line) if self._format == "json" else _text(line))
            if len(self._lines) >= _MAX_LINES:
                self.flush()
        return is_slow

    def flush(self) -> None:
        if self._lines:
            text = b"\n".join(self._lines).decode()
            self._lines.clear()
            self._stream.write(text + "\n")
            self._stream.flush()

    def _timestamp(self) -> str:
        """ISO 8601 in UTC; the part up to the second is made once per second."""
        now_s = self._wall_time_s()
        second = int(now_s)
        if second != self._second:
            self._second = second
            self._second_text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._second_text}.{int(1000 * (now_s - second)):03d}Z"


class _Line(msgspec.Struct, omit_defaults=True):
    """Fields in the order in which people read them; those with a default are left out where they have it."""

    event: str
    level: str
    timestamp: str
    request_id: str
    path: str
    status: int
    outcome: str
    duration_ms: float
    model: str
    tenant: str
    priority: str
    backend: str
    body_bytes: int
    prompt_tokens: int
    completion_tokens: int
    code: str = ""
    served_model: str = ""
    images: int = 0
    vision_tokens: int = 0
    attempts: int = 1
    cache: str = ""
    trace_id: str = ""
    waterfall_ms: dict[str, float] = {}


def _text(line: _Line) -> bytes:
    fields = msgspec.to_builtins(line)
    head = [fields.pop("timestamp"), f"[{fields.pop('level')}]", fields.pop("event")]
    waterfall = fields.pop("waterfall_ms", None)
    shown = [f"{name}={_plain(value)}" for name, value in fields.items() if value != ""]
    tail = (
        ["[" + " | ".join(f"{stage} {ms:.1f}" for stage, ms in waterfall.items() if ms) + " ms]"] if waterfall else []
    )
    return " ".join([*head, *shown, *tail]).encode()


def _milliseconds(waterfall: Waterfall) -> dict[str, float]:
    return {stage: round(1000 * seconds, 2) for stage, seconds in waterfall.durations().items()}


def _plain(value: object) -> object:
    """Text that cannot begin a line of its own."""
    return value if not isinstance(value, str) or value.isprintable() else repr(value)
