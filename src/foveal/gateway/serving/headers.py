"""Which headers pass: to the backend by an allow-list, to the client all but those that belong to one connection."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from foveal.core.priority import Priority
from foveal.gateway.backends.backend import BackendSpec

__all__ = ["SECURITY_HEADERS", "answer_headers", "forwarded_headers", "request_id_of"]

Header = tuple[bytes, bytes]

_FORWARDED = (b"accept", b"tracestate", b"baggage", b"x-session-id")
"""The client's key, cookies and addresses stay here. Traceparent is ours: the gateway's span is the backend's parent."""

_OWN_CONNECTION = frozenset(
    {
        b"connection",
        b"content-length",
        b"date",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"server",
        b"server-timing",
        b"set-cookie",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-request-id",
    }
)

SECURITY_HEADERS: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,128}")


def request_id_of(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The client's own; None if it sent none, or one that could break logs."""
    given = headers.get(b"x-request-id")
    return given if given is not None and _REQUEST_ID.fullmatch(given) else None


def forwarded_headers(
    given: Mapping[bytes, bytes], backend: BackendSpec, request_id: bytes, priority: Priority, traceparent: bytes | None
) -> list[Header]:
    """Head of the request to `backend`."""
    headers: list[Header] = [
        (b"content-type", given.get(b"content-type", b"application/json")),
        (b"x-request-id", request_id),
        (b"x-priority", priority.name.encode()),
    ]
    for name in _FORWARDED:
        value = given.get(name)
        if value is not None:
            headers.append((name, value))
    if traceparent is not None:
        headers.append((b"traceparent", traceparent))
    if backend.api_key is not None:
        headers.append((b"authorization", b"Bearer " + backend.api_key.encode()))
    return headers


def answer_headers(from_backend: Iterable[Header], request_id: bytes, extra: Iterable[Header]) -> list[Header]:
    """Head of the answer to the client."""
    headers = [header for header in from_backend if header[0] not in _OWN_CONNECTION]
    headers.append((b"x-request-id", request_id))
    headers.extend(extra)
    headers.append(SECURITY_HEADERS[0])
    return headers
