from __future__ import annotations

import itertools

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.gateway.wire.chunked import ChunkedBody
from foveal.gateway.wire.head import HeadError


def encode(chunks: list[bytes], extension: bytes = b"", trailer: bytes = b"") -> bytes:
    body = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    return body + b"0\r\n" + trailer + b"\r\n"


def feed(data: bytes, cuts: list[int], max_bytes: int = 1 << 20) -> tuple[ChunkedBody, int]:
    body = ChunkedBody(max_bytes)
    used = 0
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(edges):
        if body.complete:
            break
        used += body.feed(memoryview(data)[start:end])
    return body, used


@given(
    st.lists(st.binary(min_size=1, max_size=300), max_size=8),
    st.sampled_from([b"", b";a=b", b" ", b' ;name="v"']),
    st.sampled_from([b"", b"x: y\r\n"]),
    st.binary(max_size=20),
    st.lists(st.integers(0, 4000), max_size=12),
)
def test_any_cutting_gives_the_body_and_leaves_what_follows(
    chunks: list[bytes], extension: bytes, trailer: bytes, following: bytes, cuts: list[int]
) -> None:
    data = encode(chunks, extension, trailer)
    body, used = feed(data + following, cuts)
    assert body.complete
    assert bytes(body.body) == b"".join(chunks)
    assert used == len(data)


@pytest.mark.parametrize(
    "data",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"0\r\nhello\r\n\r\n",
        b"0\r\n x: y\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhelloo\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"5\rhello\r\n0\r\n\r\n",
        b"5;\x00\r\nhello\r\n0\r\n\r\n",
        b"ffffffffffffffff5\r\nhello\r\n0\r\n\r\n",
        b"5_0\r\nhello\r\n0\r\n\r\n",
        b"5;" + b"a" * 5000 + b"\r\nhello\r\n",
        b"0\r\n" + b"a: b\r\n" * 3000 + b"\r\n",
    ],
)
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_what_two_servers_could_read_differently_is_refused(data: bytes, step: int) -> None:
    with pytest.raises(HeadError):
        feed(data, list(range(0, len(data), step)))


def test_a_chunk_that_makes_it_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(HeadError) as raised:
        feed(b"60\r\n", [], max_bytes=95)
    assert raised.value.status == 413


class _Oracle:
    def __init__(self) -> None:
        self.body = b""
        self.complete = False

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


@given(
    st.lists(
        st.sampled_from([b"5", b"0", b"a", b"\r\n", b"\n", b"\r", b"hello", b";x", b" ", b"1\r\nz\r\n"]), max_size=12
    )
)
def test_whatever_we_accept_llhttp_reads_the_same(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    try:
        ours, used = feed(data, [])
    except HeadError:
        return
    if ours.complete:
        oracle = _Oracle()
        parser = httptools.HttpRequestParser(oracle)
        parser.feed_data(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + data[:used])
        assert oracle.complete
        assert oracle.body == bytes(ours.body)
