"""Every way a request can fail, as a status, headers and a body; and what a backend's failure means to the client."""

from __future__ import annotations

import math

import msgspec

from foveal.core.errors import (
    BackendFailedError,
    BackendUnavailableError,
    RequestError,
    RequestTimeoutError,
    UnauthorizedError,
)
from foveal.gateway.wire.upstream import UpstreamError
from foveal.protocol.error_body import error_status, to_error_body
from foveal.protocol.sse import event

__all__ = ["ErrorAnswer", "client_error", "error_answer", "error_code", "error_event"]

Headers = list[tuple[bytes, bytes]]


class ErrorAnswer(msgspec.Struct, frozen=True):
    status: int
    code: str
    headers: Headers
    body: bytes


def error_answer(error: BaseException) -> ErrorAnswer:
    """For an error before the first byte. One that nobody expected becomes a 500 that gives nothing away."""
    error = client_error(error)
    body = to_error_body(error)
    headers: Headers = [(b"content-type", b"application/json")]
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(retry_after_s))).encode()))
    elif isinstance(error, UnauthorizedError):
        headers.append((b"www-authenticate", b"Bearer"))
    return ErrorAnswer(error_status(error), body.error.code or "internal_error", headers, msgspec.json.encode(body))


def error_event(error: BaseException) -> bytes:
    """For an error after the first byte of a stream."""
    return event(to_error_body(client_error(error)))


def error_code(error: BaseException) -> str:
    return to_error_body(client_error(error)).error.code or "internal_error"


def client_error(error: BaseException) -> BaseException:
    """What a client is told of a backend's failure: its kind, never its address."""
    if isinstance(error, RequestError) or not isinstance(error, UpstreamError):
        return error
    if error.timed_out and error.stage != "connect":
        return RequestTimeoutError(
            f"the backend gave no sign of life in time ({_STAGES[error.stage]}); retry, or raise the gateway's time-outs"
        )
    if error.stage == "connect":
        return BackendUnavailableError("no backend of this model can be reached; retry shortly", retry_after_s=5.0)
    return BackendFailedError(f"the backend failed ({_STAGES[error.stage]}); retry, so that another one answers")


_STAGES = {
    "connect": "while connecting",
    "send": "while taking the request",
    "first_byte": "before its answer began",
    "body": "in the middle of its answer",
    "protocol": "with what is no valid answer",
}
