from __future__ import annotations

from foveal.gateway.wire.buffers import BodyBuffers

KIB = 1024


def test_a_buffer_nobody_refers_to_is_used_again() -> None:
    buffers = BodyBuffers(1 << 20)
    first = [buffers.take(100 * KIB)]
    address = id(first[0])
    buffers.give_back(first)
    second = buffers.take(90 * KIB)
    assert id(second) == address
    assert len(second) == 90 * KIB


def test_a_buffer_somebody_still_looks_at_is_never_used_again() -> None:
    buffers = BodyBuffers(1 << 20)
    body = [buffers.take(100 * KIB)]
    view = memoryview(body[0])[5:10]
    buffers.give_back(body)
    other = buffers.take(100 * KIB)
    other[:] = b"x" * len(other)
    assert bytes(view) == b"\0" * 5
    assert buffers.kept_bytes == 0


def test_no_more_is_kept_than_allowed() -> None:
    buffers = BodyBuffers(250 * KIB)
    for holder in [[buffers.take(100 * KIB)] for _ in range(5)]:
        buffers.give_back(holder)
    assert 0 < buffers.kept_bytes <= 250 * KIB


def test_a_much_larger_buffer_is_left_for_larger_bodies() -> None:
    buffers = BodyBuffers(1 << 20)
    buffers.give_back([buffers.take(400 * KIB)])
    kept = buffers.kept_bytes
    buffers.take(100 * KIB)
    assert buffers.kept_bytes == kept
