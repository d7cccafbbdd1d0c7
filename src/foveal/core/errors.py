"""Every error that Foveal raises on purpose.

FovealError
|-- ConfigurationError          a flag, file or environment that cannot work
|-- ModelLoadError              a checkpoint that cannot be read or is not supported
|-- IntegrityError              an internal account does not add up: a bug, never the user's fault
|-- EngineDeadError             the engine process is gone; in-flight requests end with this
`-- RequestError                one request cannot be served (carries an HTTP status)
    |-- InvalidRequestError     400  a value is missing, of a wrong type or out of range
    |   |-- PromptTooLongError  400
    |   |-- TooManyImagesError  400
    |   |-- ImageDecodeError    400  bytes that are not a readable image
    |   |-- ForbiddenUrlError   400  SSRF protection
    |   `-- ImageFetchError     400  the URL could not be read
    |-- UnauthorizedError       401
    |-- ModelNotFoundError      404
    |-- PayloadTooLargeError    413  body or pixels over the limit
    |-- RequestTimeoutError     504
    `-- OverloadedError         503  with Retry-After

Messages follow one shape: what was found, what the limit is, what to do.
"""

from __future__ import annotations

__all__ = [
    "ConfigurationError",
    "EngineDeadError",
    "ForbiddenUrlError",
    "FovealError",
    "ImageDecodeError",
    "ImageFetchError",
    "IntegrityError",
    "InvalidRequestError",
    "ModelLoadError",
    "ModelNotFoundError",
    "OverloadedError",
    "PayloadTooLargeError",
    "PromptTooLongError",
    "RequestError",
    "RequestTimeoutError",
    "TooManyImagesError",
    "UnauthorizedError",
]


class FovealError(Exception):
    """Base of all errors raised on purpose."""


class ConfigurationError(FovealError):
    """A flag, file or environment that cannot work."""


class ModelLoadError(FovealError):
    """A checkpoint that cannot be read or is not supported."""


class IntegrityError(FovealError):
    """An internal account does not add up. Always a bug in Foveal."""


class EngineDeadError(FovealError):
    """The engine process is gone; the request it was serving is lost."""


class RequestError(FovealError):
    """One request cannot be served; others are not affected.

    `status` is the HTTP status, `code` a stable machine-readable string and
    `param` the name of the offending request field, where there is one.
    """

    status = 500
    code = "internal_error"
    type = "server_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class InvalidRequestError(RequestError):
    status = 400
    code = "invalid_request"
    type = "invalid_request_error"


class PromptTooLongError(InvalidRequestError):
    code = "context_length_exceeded"


class TooManyImagesError(InvalidRequestError):
    code = "too_many_images"


class ImageDecodeError(InvalidRequestError):
    code = "invalid_image"


class ForbiddenUrlError(InvalidRequestError):
    code = "forbidden_url"


class ImageFetchError(InvalidRequestError):
    code = "image_fetch_failed"


class UnauthorizedError(RequestError):
    status = 401
    code = "unauthorized"
    type = "authentication_error"


class ModelNotFoundError(RequestError):
    status = 404
    code = "model_not_found"
    type = "invalid_request_error"


class PayloadTooLargeError(RequestError):
    status = 413
    code = "payload_too_large"
    type = "invalid_request_error"


class RequestTimeoutError(RequestError):
    status = 504
    code = "timeout"
    type = "timeout_error"


class OverloadedError(RequestError):
    status = 503
    code = "overloaded"
    type = "overloaded_error"

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
