"""The bytes of an answer's head, and the errors that the wire itself speaks."""

from __future__ import annotations

import http
import json
import time
from collections.abc import Iterable
from email.utils import formatdate

__all__ = ["CONTINUE", "answer_head", "error_body"]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_STATUS_LINES = {
    status: b"HTTP/1.1 %d %b\r\ndate: " % (status, http.HTTPStatus(status).phrase.encode())
    for status in map(int, http.HTTPStatus)
}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class _Date:
    """The Date field, written once a second."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = b""

    def __call__(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._text = formatdate(second, usegmt=True).encode() + b"\r\n"
        return self._text


_date = _Date()


def answer_head(status: int, headers: Iterable[tuple[bytes, bytes]], framing: bytes) -> bytes:
    """`framing` is what the wire adds: content-length, transfer-encoding, connection, each line with its end.

    Raises ValueError if a field holds a line break: it would forge a second field, or a second answer.
    """
    line = _STATUS_LINES.get(status)
    if line is None:
        line = b"HTTP/1.1 %d \r\ndate: " % status
    parts = [b"%b: %b\r\n" % field for field in headers]
    head = b"".join([line, _date(), *parts, framing, b"\r\n"])
    if head.count(b"\n") != len(parts) + framing.count(b"\n") + 3 or head.count(b"\r") != head.count(b"\n"):
        raise ValueError("a header field of the answer holds a line break")
    return head


def error_body(status: int, message: str, code: str) -> bytes:
    """OpenAI's error shape."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()
