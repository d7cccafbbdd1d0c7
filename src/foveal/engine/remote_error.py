"""Errors cross process borders by class name."""

from __future__ import annotations

from foveal.core import errors
from foveal.core.errors import FovealError, RequestError

__all__ = ["describe_error", "rebuild_error"]


def describe_error(error: BaseException) -> tuple[str, str, str | None]:
    """(class name, message, param). Unexpected errors keep their type in the message."""
    if isinstance(error, FovealError):
        return type(error).__name__, str(error), getattr(error, "param", None)
    return RequestError.__name__, f"internal error: {type(error).__name__}: {error}", None


def rebuild_error(kind: str, message: str, param: str | None = None) -> FovealError:
    """The error that `describe_error` described; an unknown kind becomes a RequestError (status 500)."""
    cls = getattr(errors, kind, RequestError)
    if not (isinstance(cls, type) and issubclass(cls, FovealError)):
        cls = RequestError
    error = cls(message)
    if isinstance(error, RequestError):
        error.param = param
    return error
