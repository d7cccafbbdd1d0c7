"""What can be refused before a body is read: 50 MB of pictures must not be received for a wrong key."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from foveal.core.errors import OverloadedError, RequestError
from foveal.gateway.serving.error_answers import error_answer
from foveal.gateway.serving.headers import SECURITY_HEADERS
from foveal.gateway.serving.parts import Parts
from foveal.gateway.wire.incoming import HeadCheck, Refusal

__all__ = ["UNREAD", "head_check"]

UNREAD = ""
"""Label of the class of a request whose body was not read: nobody knows which one it would have been granted."""


def head_check(parts: Callable[[], Parts]) -> HeadCheck:
    """`parts` gives those in force now."""

    def check(headers: Mapping[bytes, bytes]) -> Refusal | None:
        error = _refusal(parts(), headers)
        if error is None:
            return None
        answer = error_answer(error)
        # The wire writes the content type itself.
        extra = [header for header in answer.headers if header[0] != b"content-type"]
        return Refusal(answer.status, answer.body, (*extra, SECURITY_HEADERS[0]))

    return check


def _refusal(parts: Parts, headers: Mapping[bytes, bytes]) -> RequestError | None:
    if parts.in_flight.draining:
        parts.metrics.count("shed_total", UNREAD, "draining")
        return OverloadedError(
            "the gateway is shutting down; retry, so that another replica answers", retry_after_s=1.0
        )
    refused = parts.tenancy.refuse_early(headers)
    if refused is not None:
        parts.metrics.count("auth_failures_total")
    return refused
