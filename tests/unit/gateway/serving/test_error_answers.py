from __future__ import annotations

import json

import pytest

from foveal.core.errors import OverloadedError, RateLimitedError, UnauthorizedError
from foveal.gateway.serving.error_answers import error_answer, error_code, error_event
from foveal.gateway.wire.upstream import UpstreamError


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (UpstreamError("10.0.0.7:8000 refused", "connect"), 503, "no_backend"),
        (UpstreamError("10.0.0.7:8000 is slow", "connect", timed_out=True), 503, "no_backend"),
        (UpstreamError("10.0.0.7:8000 is silent", "first_byte", timed_out=True), 504, "timeout"),
        (UpstreamError("10.0.0.7:8000 is silent", "body", timed_out=True), 504, "timeout"),
        (UpstreamError("10.0.0.7:8000 broke off", "body"), 502, "backend_failed"),
        (UpstreamError("10.0.0.7:8000 mumbles", "protocol"), 502, "backend_failed"),
        (ValueError("prompt of a user"), 500, "internal_error"),
    ],
)
def test_a_failure_has_a_status_and_a_code_and_gives_nothing_away(error: Exception, status: int, code: str) -> None:
    answer = error_answer(error)
    assert (answer.status, answer.code, error_code(error)) == (status, code, code)
    for told in (answer.body, error_event(error)):
        assert b"10.0.0.7" not in told
        assert b"prompt of a user" not in told
    assert json.loads(answer.body)["error"]["code"] == code


def test_refusals_say_when_to_come_back_in_whole_seconds() -> None:
    for error in (
        OverloadedError("full", retry_after_s=2.2),
        RateLimitedError("much", limit="tokens", retry_after_s=0.1),
    ):
        seconds = dict(error_answer(error).headers)[b"retry-after"]
        assert seconds == (b"3" if isinstance(error, OverloadedError) else b"1")


def test_a_wrong_key_is_told_how_to_send_one() -> None:
    assert (b"www-authenticate", b"Bearer") in error_answer(UnauthorizedError("no key")).headers
