from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.gateway.wire.head import HeadError, HeadReader, RequestHead


def read(head: bytes, max_headers: int = 100) -> RequestHead:
    return HeadReader(max_headers).read(memoryview(head))


def post(*lines: bytes) -> bytes:
    return b"".join(
        [b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n", *(line + b"\r\n" for line in lines), b"\r\n"]
    )


def test_a_plain_head_is_read() -> None:
    head = read(b"POST /v1/chat/completions?x=1&y HTTP/1.1\r\nHost: a\r\nX-B: \xe4\r\nContent-Length: 12 \r\n\r\n")
    assert (head.method, head.path, head.query, head.minor) == (b"POST", b"/v1/chat/completions", b"x=1&y", 1)
    assert head.headers[b"x-b"] == b"\xe4"
    assert (head.length, head.chunked, head.keep_alive, head.expects_continue) == (12, False, True, False)


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ((b"Content-Length: 5", b"Content-Length: 6"), 400),
        ((b"Content-Length: 5", b"Content-Length: 5"), 400),
        ((b"Content-Length: 5", b"Transfer-Encoding: chunked"), 400),
        ((b"Transfer-Encoding: chunked", b"Content-Length: 5"), 400),
        ((b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400),
        ((b"Transfer-Encoding: xchunked",), 400),
        ((b"Transfer-Encoding: chunked, identity",), 400),
        ((b"Transfer-Encoding: gzip, chunked",), 501),
        ((b"Transfer-Encoding:\x0bchunked",), 400),
        ((b"Transfer-Encoding : chunked",), 400),
        ((b"Content-Length : 5",), 400),
        ((b"Content-Length: +5",), 400),
        ((b"Content-Length: -5",), 400),
        ((b"Content-Length: 5, 5",), 400),
        ((b"Content-Length: 0x5",), 400),
        ((b"Content-Length: 5_0",), 400),
        ((b"Content-Length:",), 400),
        ((b"Content-Length: 99999999999999999999",), 400),
        ((b"Host: b",), 400),
        ((b"Authorization: a", b"Authorization: b"), 400),
        ((b"X: a", b" b"), 400),
        ((b"X: a\x00b",), 400),
        ((b"X: a\rb",), 400),
        ((b"X\xff: a",), 400),
        ((b"X: a\nContent-Length: 5",), 400),
        ((b": a",), 400),
        ((b"Expect: 200-ok",), 417),
    ],
)
def test_what_could_smuggle_a_second_request_is_refused(lines: tuple[bytes, ...], status: int) -> None:
    with pytest.raises(HeadError) as raised:
        read(post(*lines))
    assert raised.value.status == status


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET ftp://a/b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"\r\n\r\n\r\n", 400),
    ],
)
def test_what_is_not_http_1_is_refused(head: bytes, status: int) -> None:
    with pytest.raises(HeadError) as raised:
        read(head)
    assert raised.value.status == status


def test_too_many_fields_are_refused() -> None:
    lines = [b"x-%d: 1" % number for number in range(10)]
    with pytest.raises(HeadError) as raised:
        read(post(*lines), max_headers=10)
    assert raised.value.status == 431


def test_fields_sent_twice_are_joined() -> None:
    assert read(post(b"X-A: 1", b"x-a: 2")).headers[b"x-a"] == b"1, 2"


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        (post(), True),
        (post(b"Connection: close"), False),
        (post(b"Connection: TE, Close"), False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True),
    ],
)
def test_who_wants_the_connection_kept(head: bytes, keep_alive: bool) -> None:
    assert read(head).keep_alive is keep_alive


def test_an_absolute_target_is_read_as_its_path() -> None:
    head = read(b"POST http://gateway:80/v1/completions?q HTTP/1.1\r\nHost: gateway\r\n\r\n")
    assert (head.path, head.query) == (b"/v1/completions", b"q")


def test_an_offer_to_upgrade_is_not_taken() -> None:
    assert read(post(b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 4")).length == 4


@given(st.binary(max_size=400))
def test_no_bytes_whatever_break_the_reader(noise: bytes) -> None:
    for head in (noise + b"\r\n\r\n", b"POST / HTTP/1.1\r\nHost: a\r\n" + noise + b"\r\n\r\n"):
        with contextlib.suppress(HeadError):
            read(head)


_FIELD = st.tuples(
    st.sampled_from(
        [b"Content-Length", b"content-length", b"Transfer-Encoding", b"Host", b"X-Foo", b"Expect", b"Connection"]
    ),
    st.sampled_from([b":", b": ", b" :", b":\t", b":\x0b"]),
    st.sampled_from(
        [b"5", b"0", b"chunked", b"Chunked", b"identity", b"5 ", b"5,5", b"close", b"100-continue", b"", b"a\r\n b"]
    ),
    st.sampled_from([b"\r\n", b"\n", b"\r"]),
)


@given(st.lists(_FIELD, max_size=5))
def test_an_accepted_head_has_exactly_one_meaning(fields: list[tuple[bytes, bytes, bytes, bytes]]) -> None:
    text = b"".join(b"".join(field) for field in fields)
    try:
        head = read(b"POST / HTTP/1.1\r\n" + text + b"\r\n")
    except HeadError:
        return
    names = [field[0].lower() for field in fields]
    assert names.count(b"content-length") <= 1
    assert names.count(b"transfer-encoding") <= 1
    assert not (b"content-length" in names and b"transfer-encoding" in names)
    assert all(field[3] == b"\r\n" and field[1] in (b":", b": ", b":\t") for field in fields)
    assert head.chunked == (b"transfer-encoding" in names)
