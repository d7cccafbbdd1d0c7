"""Every error that Foveal raises on purpose.

FovealError
|-- ConfigurationError          a flag, file or environment that cannot work
|-- ModelLoadError              a checkpoint that cannot be read or is not supported
|-- ArtifactError               a model directory does not hold what its passport says
|   |-- PassportMissingError    no passport.json
|   |-- PassportSchemaError     passport.json cannot be read, or has an unknown schema
|   |-- PassportDigestError     the passport was changed after it was written
|   |-- NothingQuantisedError   a quantised artefact without one quantised layer
|   |-- MissingFileError        a listed file is not there
|   |-- TruncatedFileError      a listed file is shorter
|   |-- ChangedFileError        a listed file has other contents
|   |-- ExtraWeightsError       a file that a loader would read is not listed
|   |-- VerdictError            the gate rejected it, or has not judged it
|   |-- OutputExistsError       the output directory is there already, or in use
|   `-- StorageError            the disk is full, or the place cannot be written
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
    |-- RateLimitedError        429  the tenant's own limit, with Retry-After
    |-- RequestTimeoutError     504
    |-- OverloadedError         503  with Retry-After
    |   `-- BackendUnavailableError 503  no backend of the model can be reached
    `-- BackendFailedError      502  a backend broke off or answered nonsense

Messages follow one shape: what was found, what the limit is, what to do.
"""

from __future__ import annotations

__all__ = [
    "ArtifactError",
    "BackendFailedError",
    "BackendUnavailableError",
    "ChangedFileError",
    "ConfigurationError",
    "EngineDeadError",
    "ExtraWeightsError",
    "ForbiddenUrlError",
    "FovealError",
    "ImageDecodeError",
    "ImageFetchError",
    "IntegrityError",
    "InvalidRequestError",
    "MissingFileError",
    "ModelLoadError",
    "ModelNotFoundError",
    "NothingQuantisedError",
    "OutputExistsError",
    "OverloadedError",
    "PassportDigestError",
    "PassportMissingError",
    "PassportSchemaError",
    "PayloadTooLargeError",
    "PromptTooLongError",
    "RateLimitedError",
    "RequestError",
    "RequestTimeoutError",
    "StorageError",
    "TooManyImagesError",
    "TruncatedFileError",
    "UnauthorizedError",
    "VerdictError",
]


class FovealError(Exception):
    """Base of all errors raised on purpose."""


class ConfigurationError(FovealError):
    """A flag, file or environment that cannot work."""


class ModelLoadError(FovealError):
    """A checkpoint that cannot be read or is not supported."""


class ArtifactError(FovealError):
    """A model directory does not hold what its passport says, or could not be written.

    `found`, `expected` and `remedy` make up the message; with `found` alone, that is the whole message.
    """

    def __init__(self, found: str, expected: str = "", remedy: str = "") -> None:
        first = f"{found}; expected {expected}" if expected else found
        super().__init__(f"{first}. {remedy}" if remedy else first)
        self.found, self.expected, self.remedy = found, expected, remedy


class PassportMissingError(ArtifactError):
    """There is no passport.json."""


class PassportSchemaError(ArtifactError):
    """passport.json cannot be read, or has a schema that this version does not know."""


class PassportDigestError(ArtifactError):
    """The passport's digested part is not what its digest says."""


class NothingQuantisedError(ArtifactError):
    """The artefact claims to be quantised, and no layer is."""


class MissingFileError(ArtifactError):
    """A file that the passport lists is not there."""


class TruncatedFileError(ArtifactError):
    """A file is shorter than the passport says."""


class ChangedFileError(ArtifactError):
    """A file has other contents than the passport says."""


class ExtraWeightsError(ArtifactError):
    """A file that a loader would read is not in the passport."""


class VerdictError(ArtifactError):
    """The quality gate rejected the artefact, or has not judged it."""


class OutputExistsError(ArtifactError):
    """The output directory is there already, or another process is writing it."""


class StorageError(ArtifactError):
    """The disk is full, or the place cannot be written."""


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


class RateLimitedError(RequestError):
    """`limit` names what was used up: requests, tokens, vision, concurrency, daily_tokens or daily_requests."""

    status = 429
    code = "rate_limited"
    type = "rate_limit_error"

    def __init__(self, message: str, *, limit: str = "requests", retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.limit = limit
        self.retry_after_s = retry_after_s


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


class BackendUnavailableError(OverloadedError):
    """No backend of the model can be reached now."""

    code = "no_backend"


class BackendFailedError(RequestError):
    """A backend took the request and broke off, or answered what is no answer."""

    status = 502
    code = "backend_failed"
    type = "server_error"
