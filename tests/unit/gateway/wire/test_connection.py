"""A client connection, over a fake socket."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.gateway.wire.incoming import Incoming, Refusal
from foveal.gateway.wire.settings import WireConfig
from support.wire_harness import Answers, WireHarness, request

JSON = ((b"content-type", b"application/json"),)

_REQUEST = st.tuples(
    st.sampled_from([b"/v1/chat/completions", b"/v1/completions", b"/elsewhere"]),
    st.sampled_from([0, 1, 100, 5_000, 70_000, 300_000]),
    st.sampled_from([0, 0, 1000, 100_000]),
)


@settings(deadline=None)
@given(
    st.lists(_REQUEST, min_size=1, max_size=4),
    st.lists(st.integers(0, 1 << 30), max_size=8),
    st.sampled_from([1 << 20, 999, 65_536]),
)
def test_however_the_bytes_arrive_each_request_gets_its_answer_in_turn(
    wanted: list[tuple[bytes, int, int]], cuts: list[int], largest_read: int
) -> None:
    data = b"".join(request(b"%010d" % size + b"z" * size, path, chunk=chunk) for path, size, chunk in wanted)
    edges = sorted({0, len(data), *(cut % len(data) for cut in cuts)})

    async def run() -> None:
        harness = WireHarness()
        client = harness.connect(largest_read)
        for start, end in itertools.pairwise(edges):
            client.feed(data[start:end])
            await asyncio.sleep(0)
        for _ in range(200):
            await harness.settle()
        answers = Answers().feed(client.take_written())
        assert answers.bodies == [
            b"POST /elsewhere %d" % (size + 10) if path == b"/elsewhere" else b"%d:%010d" % (size + 10, size)
            for path, size, _ in wanted
        ]
        assert not client.closing
        harness.assert_nothing_held()

    asyncio.run(run())


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60), st.sampled_from([request(b"x" * 9), request(b"x" * 9, chunk=4), b"\r\n", b"GET"])
        ),
        max_size=6,
    )
)
def test_no_bytes_whatever_leave_something_held(pieces: list[bytes]) -> None:
    async def run() -> None:
        harness = WireHarness()
        client = harness.connect()
        for piece in pieces:
            client.feed(piece)
            await harness.settle()
        harness.loop.advance(1000)
        await harness.settle()
        harness.loop.advance(1000)
        await harness.settle()
        assert client.lost
        assert not harness.core.connections
        harness.assert_nothing_held()

    asyncio.run(run())


async def test_a_body_over_the_limit_is_refused_before_it_is_read() -> None:
    harness = WireHarness(config=WireConfig(max_body_bytes=1000))
    client = harness.connect()
    answers = await harness.ask(client, b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n")
    assert answers.statuses == [413]
    assert answers.whole[0][1][b"connection"] == b"close"
    assert client.eof_sent
    client.feed(b"x" * 1001)
    assert not client.closing, "closing now would reset the connection, and the client might not see the refusal"
    harness.loop.advance(3)
    await harness.settle()
    assert client.lost
    harness.assert_nothing_held()


async def test_a_chunked_body_over_the_limit_is_refused() -> None:
    harness = WireHarness(config=WireConfig(max_body_bytes=1000))
    assert (await harness.ask(harness.connect(), request(b"x" * 1001, chunk=100))).statuses == [413]
    harness.assert_nothing_held()


async def test_other_routes_have_their_own_limit() -> None:
    harness = WireHarness(config=WireConfig(max_app_body_bytes=10))
    assert (await harness.ask(harness.connect(), request(b"x" * 11, path=b"/admin"))).statuses == [413]


def _check(headers: Mapping[bytes, bytes]) -> Refusal | None:
    return None if headers.get(b"authorization") == b"Bearer good" else Refusal(401, b"{}")


async def test_a_wrong_key_is_refused_before_the_body_is_read() -> None:
    harness = WireHarness(check=_check)
    client = harness.connect()
    answers = await harness.ask(client, request(b"x" * 1_000_000)[:500])
    assert answers.statuses == [401]
    assert harness.core.budget.peak == 0
    assert client.eof_sent


async def test_a_wrong_key_on_a_small_request_leaves_the_connection_open() -> None:
    harness = WireHarness(check=_check)
    client = harness.connect()
    good = request(b"hello", extra=b"Authorization: Bearer good\r\n")
    assert (await harness.ask(client, request(b"x") + good)).statuses == [401, 200]
    assert harness.core.refusals[401, "check"] == 1


async def test_keys_are_not_asked_for_on_other_routes() -> None:
    harness = WireHarness(check=_check)
    assert (await harness.ask(harness.connect(), request(path=b"/live", method=b"GET"))).statuses == [200]


class Gate:
    """A handler that answers when told to."""

    def __init__(self) -> None:
        self.seen: list[Incoming] = []
        self.cancelled = 0
        self.open = asyncio.Event()

    async def __call__(self, incoming: Incoming) -> None:
        self.seen.append(incoming)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        incoming.respond(200, JSON, b"{}")


async def test_a_body_that_does_not_fit_waits_unread_until_another_is_done() -> None:
    gate = Gate()
    harness = WireHarness(gate, WireConfig(max_body_bytes=1000, max_bytes_in_flight=1500))
    first, second = harness.connect(), harness.connect()
    first.feed(request(b"x" * 1000))
    second.feed(request(b"y" * 1000)[:300])
    await harness.settle()
    second.feed(request(b"y" * 1000)[300:])
    await harness.settle()
    assert second.paused
    assert harness.core.budget.num_waiting == 1
    assert len(gate.seen) == 1
    gate.open.set()
    await harness.settle()
    assert Answers().feed(second.take_written()).statuses == [200]
    assert bytes(gate.seen[0].body) == b""
    harness.assert_nothing_held()


@pytest.mark.parametrize("chunk", [0, 100])
async def test_a_body_that_waits_too_long_gets_503(chunk: int) -> None:
    gate = Gate()
    harness = WireHarness(gate, WireConfig(max_body_bytes=1000, max_bytes_in_flight=1500))
    first, second = harness.connect(), harness.connect()
    first.feed(request(b"x" * 1000))
    second.feed(request(b"y" * 1000, chunk=chunk))
    await harness.settle()
    harness.loop.advance(2.1)
    await harness.settle()
    answers = Answers().feed(second.take_written())
    assert answers.statuses == [503]
    assert answers.whole[0][1][b"retry-after"] == b"1"
    assert harness.core.budget.num_waiting == 0
    assert harness.core.budget.used == 1000


async def test_a_client_that_leaves_while_waiting_gives_its_place_up() -> None:
    gate = Gate()
    harness = WireHarness(gate, WireConfig(max_body_bytes=1000, max_bytes_in_flight=1500))
    first, second = harness.connect(), harness.connect()
    first.feed(request(b"x" * 1000))
    second.feed(request(b"y" * 1000))
    await harness.settle()
    second.lose()
    gate.open.set()
    await harness.settle()
    assert len(gate.seen) == 1
    harness.assert_nothing_held()


async def test_a_client_that_leaves_cancels_its_handler() -> None:
    gate = Gate()
    harness = WireHarness(gate)
    client = harness.connect()
    client.feed(request(b"x"))
    await harness.settle()
    client.lose()
    await harness.settle()
    assert gate.cancelled == 1
    assert gate.seen[0].disconnected
    harness.assert_nothing_held()


async def test_a_client_that_leaves_before_its_handler_began_leaves_nothing_behind() -> None:
    gate = Gate()
    harness = WireHarness(gate)
    client = harness.connect()
    client.feed(request(b"x"))
    client.lose()
    await harness.settle()
    assert gate.seen == []
    harness.assert_nothing_held()


async def test_a_client_that_leaves_with_its_answer_does_not_cut_the_book_keeping_short() -> None:
    done: list[str] = []
    go_on = asyncio.Event()

    async def handler(incoming: Incoming) -> None:
        incoming.respond(200, JSON, b"{}")
        await go_on.wait()
        done.append("settled")

    harness = WireHarness(handler)
    client = harness.connect()
    client.feed(request(b"x"))
    await harness.settle()
    client.lose()
    go_on.set()
    await harness.settle()
    assert done == ["settled"]
    harness.assert_nothing_held()


@pytest.mark.parametrize("sent", [10, 60, 500, 900])
async def test_a_client_that_leaves_in_the_middle_of_its_request_leaves_nothing_behind(sent: int) -> None:
    harness = WireHarness()
    client = harness.connect()
    client.feed(request(b"x" * 1000)[:sent])
    await harness.settle()
    client.lose()
    harness.loop.advance(1000)
    assert not harness.core.connections
    harness.assert_nothing_held()


async def test_a_head_that_takes_too_long_gets_408() -> None:
    harness = WireHarness(config=WireConfig(head_s=10))
    client = harness.connect()
    client.feed(b"POST /v1/chat")
    harness.loop.advance(6)
    client.feed(b"/completions HTTP/1.1\r\n")
    harness.loop.advance(5)
    await harness.settle()
    assert b" 408 " in client.take_written()


@pytest.mark.parametrize("chunk", [0, 2000])
async def test_a_body_that_comes_too_slowly_gets_408(chunk: int) -> None:
    harness = WireHarness(config=WireConfig(body_s=10, min_body_rate=1000))
    client = harness.connect()
    data = request(b"x" * 40_000, chunk=chunk)
    client.feed(data[:200])
    harness.loop.advance(9)
    client.feed(data[200:11_000])
    harness.loop.advance(2)
    await harness.settle()
    assert client.take_written() == b"", "it grew by more than 10,000 bytes in 10 s"
    harness.loop.advance(6)
    client.feed(data[11_000:20_000])
    harness.loop.advance(4)
    await harness.settle()
    assert b" 408 " in client.take_written()
    harness.assert_nothing_held()


async def test_a_small_body_does_not_wait_behind_large_ones() -> None:
    gate = Gate()
    mib = 1 << 20
    harness = WireHarness(gate, WireConfig(max_body_bytes=15 * mib, max_bytes_in_flight=16 * mib))
    first, second, small = harness.connect(), harness.connect(), harness.connect()
    first.feed(request(b"x" * 15 * mib))
    second.feed(request(b"y" * mib))
    small.feed(request(b"z" * 2000))
    await harness.settle()
    assert sorted(len(incoming.body) for incoming in gate.seen) == [2000, 15 * mib]
    assert harness.core.budget.num_waiting == 1
    gate.open.set()
    await harness.settle()
    harness.assert_nothing_held()


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    harness = WireHarness(config=WireConfig(keep_alive_s=75))
    client = harness.connect()
    assert (await harness.ask(client, request(b"x"))).statuses == [200]
    harness.loop.advance(76)
    await harness.settle()
    assert client.lost
    assert client.take_written() == b""


async def test_an_over_long_head_gets_431() -> None:
    harness = WireHarness(config=WireConfig(max_head_bytes=1000))
    for data in (request(extra=b"x: " + b"a" * 1000 + b"\r\n"), b"GET /" + b"a" * 1100):
        assert (await harness.ask(harness.connect(), data)).statuses == [431]


async def test_a_smuggled_request_is_never_served() -> None:
    gate = Gate()
    harness = WireHarness(gate)
    data = (
        b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        + request()
    )
    assert (await harness.ask(harness.connect(), data)).statuses == [400]
    assert gate.seen == []


async def test_expect_continue_is_answered_once_there_is_room() -> None:
    harness = WireHarness(config=WireConfig(max_body_bytes=10))
    client = harness.connect()
    head, body = request(b"0123456789", extra=b"Expect: 100-continue\r\n").split(b"\r\n\r\n")
    client.feed(head + b"\r\n\r\n")
    assert client.take_written() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert (await harness.ask(client, body)).statuses == [200]
    refused = await harness.ask(harness.connect(), request(b"x" * 11, extra=b"Expect: 100-continue\r\n")[:-11])
    assert refused.statuses == [413]


async def test_a_handler_that_fails_gives_500(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(incoming: Incoming) -> None:
        raise RuntimeError("broken")

    harness = WireHarness(handler)
    client = harness.connect()
    assert (await harness.ask(client, request(b"x") + request(b"y"))).statuses == [500, 500]
    harness.assert_nothing_held()


async def test_a_handler_that_answers_nothing_gives_500() -> None:
    async def handler(incoming: Incoming) -> None:
        return None

    assert (await (harness := WireHarness(handler)).ask(harness.connect(), request(b"x"))).statuses == [500]


@pytest.mark.parametrize("returns", [True, False])
async def test_an_answer_that_stops_in_the_middle_breaks_the_connection(returns: bool) -> None:
    async def handler(incoming: Incoming) -> None:
        incoming.start(200, JSON)
        await incoming.write(b"half")
        if not returns:
            raise RuntimeError("broken")

    harness = WireHarness(handler)
    client = harness.connect()
    assert (await harness.ask(client, request(b"x"))).whole == []
    assert client.aborted


async def test_an_answer_shorter_than_announced_breaks_the_connection() -> None:
    async def handler(incoming: Incoming) -> None:
        incoming.start(200, JSON, content_length=10)
        await incoming.write(b"half")
        incoming.finish()

    harness = WireHarness(handler)
    client = harness.connect()
    await harness.ask(client, request(b"x"))
    assert client.aborted


async def stream(incoming: Incoming) -> None:
    incoming.start(200, ((b"content-type", b"text/event-stream"),))
    for piece in (b"one", b"", b"two" * 10_000, b"three"):
        await incoming.write(piece)
    incoming.finish(b"last")
    incoming.finish()


async def test_a_stream_is_chunked_and_the_connection_lives_on() -> None:
    harness = WireHarness(stream)
    client = harness.connect()
    answers = await harness.ask(client, request(b"x") + request(b"y"))
    assert answers.bodies == [b"one" + b"two" * 10_000 + b"threelast"] * 2


async def test_a_stream_to_an_old_client_ends_with_its_connection() -> None:
    harness = WireHarness(stream)
    client = harness.connect()
    client.feed(b"POST /v1/completions HTTP/1.0\r\nContent-Length: 1\r\n\r\nx")
    await harness.settle()
    written = client.take_written()
    assert b"chunked" not in written
    assert written.endswith(b"threelast")
    assert client.lost


async def test_a_stream_waits_for_a_slow_reader_and_a_stalled_one_is_cut_off() -> None:
    sent: list[int] = []

    async def handler(incoming: Incoming) -> None:
        client.protocol.pause_writing()
        incoming.start(200, JSON)
        for number in range(3):
            await incoming.write(b"x")
            sent.append(number)
        incoming.finish()

    harness = WireHarness(handler, WireConfig(send_stall_s=60))
    client = harness.connect()
    client.feed(request(b"x"))
    await harness.settle()
    assert sent == []
    client.protocol.resume_writing()
    await harness.settle()
    assert sent == [0, 1, 2]
    client.feed(request(b"x"))
    await harness.settle()
    harness.loop.advance(61)
    await harness.settle()
    assert client.aborted
    harness.assert_nothing_held()


async def test_a_header_with_a_line_break_is_never_written(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(incoming: Incoming) -> None:
        incoming.respond(200, ((b"x-a", b"1\r\nset-cookie: evil"),), b"")

    harness = WireHarness(handler)
    client = harness.connect()
    client.feed(request(b"x"))
    await harness.settle()
    assert b"evil" not in client.take_written()


async def test_what_is_sent_ahead_is_bounded() -> None:
    gate = Gate()
    harness = WireHarness(gate, WireConfig(max_pipelined_bytes=1000))
    client = harness.connect(largest_read=500)
    client.feed(request(b"x") * 100)
    await harness.settle()
    assert client.paused
    assert len(client.protocol._ahead) <= 1500
    gate.open.set()
    for _ in range(40):
        await harness.settle()
    assert Answers().feed(client.take_written()).statuses == [200] * 100


async def test_one_connection_too_many_gets_503() -> None:
    harness = WireHarness(config=WireConfig(max_connections=1))
    harness.connect()
    second = harness.connect()
    await harness.settle()
    assert Answers().feed(second.take_written()).statuses == [503]


async def test_while_draining_every_answer_is_its_connections_last() -> None:
    gate = Gate()
    harness = WireHarness(gate)
    busy, idle = harness.connect(), harness.connect()
    busy.feed(request(b"x"))
    await harness.settle()
    harness.core.draining = True
    for connection in harness.core.connections:
        connection.announce_close()
    gate.open.set()
    await harness.settle()
    answers = Answers().feed(busy.take_written())
    assert answers.whole[0][1][b"connection"] == b"close"
    assert busy.lost
    assert not idle.closing
    assert (await harness.ask(idle, request(b"y"))).whole[0][1][b"connection"] == b"close"


async def test_only_idle_connections_are_closed_while_draining() -> None:
    gate = Gate()
    harness = WireHarness(gate)
    busy, idle, reading = harness.connect(), harness.connect(), harness.connect()
    busy.feed(request(b"x"))
    reading.feed(request(b"x" * 1000)[:300])
    await harness.settle()
    for client in (busy, idle, reading):
        client.protocol.close_if_idle()
    assert [client.eof_sent for client in (busy, idle, reading)] == [False, True, False]


async def test_head_and_get_go_to_the_application() -> None:
    harness = WireHarness()
    client = harness.connect()
    client.feed(request(path=b"/health", method=b"HEAD"))
    await harness.settle()
    assert client.take_written().endswith(b"\r\n\r\n")
    answers = await harness.ask(client, request(path=b"/v1/chat/completions", method=b"GET"))
    assert answers.bodies == [b"GET /v1/chat/completions 0"]


async def test_an_application_may_stream_and_learns_that_its_client_left() -> None:
    told: list[str] = []

    async def app(scope: object, receive: object, send: object) -> None:
        await receive()  # type: ignore[operator]
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b"a", "more_body": True})  # type: ignore[operator]
        told.append((await receive())["type"])  # type: ignore[operator]

    harness = WireHarness(app=app)
    client = harness.connect()
    client.feed(request(path=b"/events", method=b"GET"))
    await harness.settle()
    assert b"1\r\na\r\n" in client.take_written()
    client.lose()
    await harness.settle()
    assert told == ["http.disconnect"]
