"""The one shape in which every error leaves the server: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import msgspec

from foveal.core.errors import EngineDeadError, RequestError

__all__ = ["ErrorBody", "ErrorInfo", "encode_error", "error_status", "to_error_body"]


class ErrorInfo(msgspec.Struct):
    """Field names are OpenAI's; `code` is a stable machine-readable string, never a number."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(msgspec.Struct):
    """What an unsuccessful response holds, and what an error event of a stream holds."""

    error: ErrorInfo


def error_status(error: BaseException) -> int:
    """The HTTP status for an exception; 500 for one nobody expected."""
    if isinstance(error, RequestError):
        return error.status
    return 503 if isinstance(error, EngineDeadError) else 500


def to_error_body(error: BaseException) -> ErrorBody:
    """The body for an exception. One that is not ours gives no detail away: it may hold paths or prompts."""
    if isinstance(error, RequestError):
        return ErrorBody(ErrorInfo(error.message, error.type, error.param, error.code))
    if isinstance(error, EngineDeadError):
        message = f"{error}. The request is lost; the engine restarts, so retry in a few seconds."
        return ErrorBody(ErrorInfo(message, "server_error", None, "engine_dead"))
    message = "an internal error occurred; it is logged under this response's X-Request-Id. Retrying may help."
    return ErrorBody(ErrorInfo(message, "server_error", None, "internal_error"))


def encode_error(error: BaseException) -> bytes:
    """`to_error_body` as JSON."""
    return msgspec.json.encode(to_error_body(error))
