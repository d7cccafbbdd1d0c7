"""One connection to a backend, over a fake socket and a manual clock."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.gateway.wire.upstream import UpstreamError, UpstreamTimeouts
from foveal.gateway.wire.upstream_answer import UpstreamAnswer
from foveal.gateway.wire.upstream_connection import UpstreamConnection
from support.fake_transport import FakeTransport
from support.manual_loop import ManualLoop


class Line:
    """A connection and what became of it."""

    def __init__(self) -> None:
        self.loop: Any = ManualLoop(asyncio.get_running_loop())
        self.free = 0
        self.lost = 0
        self.connection = UpstreamConnection(self.loop, "b:1", self._free, self._lost)
        self.socket = FakeTransport(self.connection).open()

    def _free(self, connection: UpstreamConnection) -> None:
        self.free += 1

    def _lost(self, connection: UpstreamConnection) -> None:
        self.lost += 1

    def send(self, timeouts: UpstreamTimeouts | None = None, body: tuple[bytes, ...] = (b"{}",)) -> UpstreamAnswer:
        return self.connection.send(b"POST / HTTP/1.1\r\n\r\n", body, timeouts or UpstreamTimeouts())


async def read_all(answer: UpstreamAnswer) -> bytes:
    return b"".join([chunk async for chunk in answer.chunks()])


WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"


@settings(deadline=None)
@given(
    st.sampled_from(
        [WHOLE, CHUNKED, b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE, b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + CHUNKED]
    ),
    st.lists(st.integers(0, 200), max_size=6),
)
def test_however_an_answer_arrives_it_is_the_same_and_the_connection_is_free(data: bytes, cuts: list[int]) -> None:
    async def run() -> None:
        line = Line()
        for _ in range(2):
            answer = line.send()
            edges = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
            for start, end in itertools.pairwise(edges):
                line.socket.feed(data[start:end])
            await answer.begun()
            assert answer.head.status == 200
            assert [name for name, _ in answer.head.headers] in ([b"content-type"], [b"x-a"])
            assert await read_all(answer) == b"hello"
        assert line.free == 2
        assert line.connection.is_usable

    asyncio.run(run())


async def test_a_small_answer_is_complete_at_once() -> None:
    line = Line()
    answer = line.send()
    line.socket.feed(WHOLE)
    await answer.begun()
    assert answer.complete
    assert answer.take() == b"hello"
    assert answer.take() == b""


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    line = Line()
    answer = line.send()
    line.socket.feed(b"HTTP/1.1 200 OK\r\n\r\nhel")
    line.socket.feed(b"lo")
    line.connection.eof_received()
    line.socket.lose()
    assert await read_all(answer) == b"hello"
    assert line.free == 0


@pytest.mark.parametrize("head", [b"Connection: close\r\n", b""])
async def test_a_backend_that_closes_is_not_asked_again(head: bytes) -> None:
    line = Line()
    answer = line.send()
    version = b"1.1" if head else b"1.0"
    line.socket.feed(b"HTTP/" + version + b" 200 OK\r\n" + head + b"Content-Length: 2\r\n\r\nok")
    assert await read_all(answer) == b"ok"
    assert line.free == 0
    assert line.socket.aborted


@pytest.mark.parametrize(
    ("data", "stage"),
    [
        (b"", "first_byte"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "first_byte"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", "body"),
        (CHUNKED[:-4], "body"),
    ],
)
async def test_an_answer_that_breaks_off_is_an_error_and_says_where(data: bytes, stage: str) -> None:
    line = Line()
    answer = line.send()
    line.socket.feed(data)
    line.connection.eof_received()
    line.socket.lose()
    with pytest.raises(UpstreamError) as raised:
        await read_all(answer)
    assert raised.value.stage == stage
    assert not raised.value.timed_out


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
        b"\x16\x03\x01",
    ],
)
async def test_garbage_is_an_error_of_the_protocol(data: bytes) -> None:
    line = Line()
    answer = line.send()
    line.socket.feed(data)
    with pytest.raises(UpstreamError) as raised:
        await answer.begun()
    assert raised.value.stage == "protocol"
    assert line.socket.aborted
    assert line.free == 0


@pytest.mark.parametrize("size", [1, 11, -2, len(WHOLE)])
async def test_a_second_answer_to_one_request_is_refused_however_little_of_it_came(size: int) -> None:
    line = Line()
    answer = line.send()
    line.socket.feed(WHOLE + WHOLE[:size])
    assert line.free == 0
    assert line.socket.aborted
    with pytest.raises(UpstreamError):
        await read_all(answer)


async def test_bytes_nobody_asked_for_end_the_connection() -> None:
    line = Line()
    line.socket.feed(WHOLE)
    assert line.socket.aborted


async def test_a_backend_that_does_not_begin_times_out() -> None:
    line = Line()
    answer = line.send(UpstreamTimeouts(first_byte_s=10))
    line.loop.advance(9)
    line.socket.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
    line.loop.advance(2)
    with pytest.raises(UpstreamError) as raised:
        await answer.begun()
    assert (raised.value.stage, raised.value.timed_out) == ("first_byte", True)


async def test_a_backend_that_does_not_read_the_request_times_out() -> None:
    line = Line()
    answer = line.send(UpstreamTimeouts(first_byte_s=10))
    line.connection.pause_writing()
    line.loop.advance(11)
    with pytest.raises(UpstreamError) as raised:
        await answer.begun()
    assert (raised.value.stage, raised.value.timed_out) == ("send", True)


async def test_the_time_to_the_first_byte_counts_from_the_last_byte_sent() -> None:
    line = Line()
    answer = line.send(UpstreamTimeouts(first_byte_s=10))
    line.connection.pause_writing()
    line.loop.advance(9)
    line.connection.resume_writing()
    line.loop.advance(9)
    line.socket.feed(WHOLE)
    assert await read_all(answer) == b"hello"


async def test_a_backend_that_falls_silent_times_out() -> None:
    line = Line()
    answer = line.send(UpstreamTimeouts(idle_s=10))
    line.socket.feed(WHOLE[:-2])
    await answer.begun()
    line.loop.advance(11)
    with pytest.raises(UpstreamError) as raised:
        await read_all(answer)
    assert (raised.value.stage, raised.value.timed_out) == ("body", True)


async def test_a_slow_client_stops_the_reading_and_is_not_the_backends_fault() -> None:
    line = Line()
    answer = line.send(UpstreamTimeouts(idle_s=10))
    size = 1_000_000
    line.socket.feed(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
    pieces = [b"x" * 100_000] * 10
    while pieces and not line.socket.paused:
        line.socket.feed(pieces.pop())
    assert pieces, "it never stopped reading"
    line.loop.advance(1000)
    got = len(answer.take())
    assert not line.socket.paused
    for piece in pieces:
        line.socket.feed(piece)
    await asyncio.sleep(0)
    assert got + len(await read_all(answer)) == size


async def test_an_answer_closed_early_breaks_the_connection() -> None:
    line = Line()
    answer = line.send()
    line.socket.feed(WHOLE[:-2])
    await answer.close()
    await answer.close()
    assert line.socket.aborted
    assert line.free == 0


async def test_closing_a_complete_answer_leaves_the_connection_alone() -> None:
    line = Line()
    answer = line.send()
    line.socket.feed(WHOLE)
    other = line.send()
    await answer.close()
    assert not line.socket.closing
    line.socket.feed(WHOLE)
    assert await read_all(other) == b"hello"


async def test_an_answer_before_the_request_is_out_ends_the_connection() -> None:
    line = Line()
    answer = line.send()
    line.socket.unsent = 1000
    line.socket.feed(b"HTTP/1.1 413 No\r\ncontent-length: 2\r\n\r\nno")
    assert await read_all(answer) == b"no"
    assert line.free == 0
    assert line.socket.aborted


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_whatever_break_it(noise: bytes) -> None:
    async def run() -> None:
        line = Line()
        answer = line.send()
        line.socket.feed(b"HTTP/1.1 200 OK\r\n" + noise)
        line.socket.lose()
        try:
            await read_all(answer)
        except UpstreamError:
            assert line.free == 0

    asyncio.run(run())
