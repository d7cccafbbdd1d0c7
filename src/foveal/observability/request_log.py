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
        self._lines: list[str] = []
        self._encode = msgspec.json.Encoder().encode

    def write(self, record: ExchangeRecord, waterfall: Waterfall) -> bool:
        """Returns whether the request was slow: longer than the limit, the client's upload not counted."""
        seconds = waterfall.last_s - waterfall.body_done_s
        is_slow = self._slow_s is not None and seconds > self._slow_s
        if is_slow or self._access:
            fields = self._fields(record, seconds)
            if is_slow:
                fields |= {"event": "slow request", "level": "warning", "waterfall_ms": _milliseconds(waterfall)}
            self._lines.append(self._line(fields, waterfall, is_slow))
            if len(self._lines) >= _MAX_LINES:
                self.flush()
        return is_slow

    def flush(self) -> None:
        if self._lines:
            text = "".join(self._lines)
            self._lines.clear()
            self._stream.write(text)
            self._stream.flush()

    def _fields(self, record: ExchangeRecord, seconds: float) -> dict[str, object]:
        fields: dict[str, object] = {
            "event": "request",
            "level": "info",
            "logger": "foveal.gateway",
            "timestamp": datetime.fromtimestamp(self._wall_time_s(), UTC).isoformat().replace("+00:00", "Z"),
            "request_id": record.request_id,
            "path": record.path,
            "status": record.status,
            "outcome": record.outcome,
            "duration_ms": round(1000 * seconds, 2),
            "model": record.model,
            "tenant": record.tenant,
            "priority": record.priority.name,
            "backend": record.backend,
            "body_bytes": record.body_bytes,
            "prompt_tokens": record.prompt_tokens,
            "completion_tokens": record.completion_tokens,
        }
        if record.code:
            fields["code"] = record.code
        if record.served_model and record.served_model != record.model:
            fields["served_model"] = record.served_model
        if record.num_images:
            fields |= {"images": record.num_images, "vision_tokens": record.vision_tokens}
        if record.attempts > 1:
            fields["attempts"] = record.attempts
        if record.cache:
            fields["cache"] = record.cache
        if record.traceparent:
            fields["trace_id"] = record.traceparent[3:35]
        return fields

    def _line(self, fields: dict[str, object], waterfall: Waterfall, is_slow: bool) -> str:
        if self._format == "json":
            return self._encode(fields).decode() + "\n"
        shown = " ".join(
            f"{name}={_plain(fields[name])}" for name in fields if name not in _NOT_IN_TEXT and fields[name] != ""
        )
        tail = f"  [{waterfall.describe()}]" if is_slow else ""
        return f"{fields['timestamp']} [{fields['level']}] {fields['event']} {shown}{tail}\n"


_NOT_IN_TEXT = frozenset({"timestamp", "level", "event", "logger", "waterfall_ms"})


def _milliseconds(waterfall: Waterfall) -> dict[str, float]:
    return {stage: round(1000 * seconds, 2) for stage, seconds in waterfall.durations().items()}


def _plain(value: object) -> object:
    """Text that cannot begin a line of its own."""
    return value if not isinstance(value, str) or value.isprintable() else repr(value)
