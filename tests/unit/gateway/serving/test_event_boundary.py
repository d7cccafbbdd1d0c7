from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from foveal.gateway.serving.event_boundary import EventBoundary


@given(st.lists(st.sampled_from(['{"a":1}', "[DONE]", "x\ny"])), st.sampled_from(["\n", "\r\n"]), st.data())
def test_only_whole_events_pass_and_nothing_is_lost(payloads: list[str], newline: str, data: st.DataObject) -> None:
    events = [f"data: {payload}{newline}{newline}".encode() for payload in payloads]
    stream = b"".join(events)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    boundary = EventBoundary()
    passed = b""
    ends = {0}
    for event in events:
        ends.add(max(ends) + len(event))
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        passed += boundary.whole(stream[begin:end])
        assert len(passed) in ends
    assert passed == stream
    assert boundary.rest() == b""


def test_the_half_of_an_event_at_the_end_is_held_back() -> None:
    boundary = EventBoundary()
    assert boundary.whole(b"data: 1\n\ndata: 2") == b"data: 1\n\n"
    assert boundary.rest() == b"data: 2"


def test_an_event_beyond_all_measure_passes_in_pieces() -> None:
    boundary = EventBoundary()
    chunk = b"x" * (1 << 20)
    assert boundary.whole(chunk) == b""
    assert len(boundary.whole(b"y")) == len(chunk) + 1
