from __future__ import annotations

import pytest

from foveal.gateway.serving.answer import check_first, check_head, check_whole
from foveal.gateway.wire.upstream import UpstreamError, UpstreamHead

JSON = b"application/json; charset=utf-8"
STREAM = b"text/event-stream; charset=utf-8"


def head(status: int, kind: bytes) -> UpstreamHead:
    return UpstreamHead(status, ((b"content-type", kind),))


@pytest.mark.parametrize(
    ("status", "kind", "stream"),
    [(200, JSON, False), (200, JSON, True), (200, STREAM, True), (400, JSON, True), (503, JSON, False)],
)
def test_what_openai_servers_answer_passes(status: int, kind: bytes, stream: bool) -> None:
    check_head(head(status, kind), stream)


@pytest.mark.parametrize(
    ("status", "kind", "stream"),
    [
        (200, b"text/html", False),
        (200, STREAM, False),
        (302, JSON, False),
        (204, JSON, False),
        (404, b"text/html", True),
        (200, b"", True),
    ],
)
def test_what_they_never_answer_is_a_failure_of_the_backend(status: int, kind: bytes, stream: bool) -> None:
    with pytest.raises(UpstreamError) as caught:
        check_head(head(status, kind), stream)
    assert caught.value.stage == "protocol"


@pytest.mark.parametrize("first", [b"data: {}", b"\n\ndata: {}", b": ping", b"event: x", b"id: 1", b"retry: 5", b""])
def test_a_stream_may_begin_as_the_standard_says(first: bytes) -> None:
    check_first(first)


@pytest.mark.parametrize("first", [b"<html>", b'{"error":{}}', b'data: {"error": {"message": "full"}}'])
def test_a_stream_that_begins_with_something_else_or_an_error_is_not_shown(first: bytes) -> None:
    with pytest.raises(UpstreamError):
        check_first(first)


@pytest.mark.parametrize(
    ("body", "good"), [(b' {"a": 1}\n', True), (b"{", False), (b"[1]", False), (b"", False), (b"ok", False)]
)
def test_a_whole_answer_is_an_object(body: bytes, good: bool) -> None:
    if good:
        check_whole(body)
    else:
        with pytest.raises(UpstreamError):
            check_whole(body)
