"""The body of an error that routing itself raises, in the shape of all others."""

from __future__ import annotations

from foveal.protocol.error_body import ErrorBody, ErrorInfo

__all__ = ["route_error_body"]

_SHOWN_PATH = 200


def route_error_body(status: int, method: str, path: str, allowed: str | None, detail: str) -> ErrorBody:
    """For an unknown route (404) or method (405; `allowed` is what it takes instead), or another status with `detail`."""
    path = path[:_SHOWN_PATH]
    if status == 404:
        message, code = f"there is no {path}; /openapi.json lists what there is", "not_found"
    elif status == 405:
        message, code = f"{path} does not take {method}; use {allowed or 'another method'}", "method_not_allowed"
    else:
        message, code = detail, "http_error"
    return ErrorBody(ErrorInfo(message, "invalid_request_error", None, code))
