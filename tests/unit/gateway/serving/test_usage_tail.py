from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from foveal.gateway.serving.usage_tail import AnswerUsage, UsageTail

USAGE = {
    "prompt_tokens": 500,
    "completion_tokens": 20,
    "total_tokens": 520,
    "prompt_tokens_details": {"cached_tokens": 64, "multimodal_tokens": {"image": 300}},
}


def fed(*chunks: bytes) -> UsageTail:
    tail = UsageTail()
    for chunk in chunks:
        tail.feed(chunk)
    return tail


def whole(**fields: Any) -> bytes:
    choice = {"index": 0, "message": {"content": fields.pop("content", "hi")}, "finish_reason": "length"}
    return json.dumps({"id": "a", "choices": [choice], **fields}).encode()


@given(st.data())
def test_usage_is_found_however_the_answer_is_cut_into_chunks(data: st.DataObject) -> None:
    body = whole(usage=USAGE, system_fingerprint=None)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=5)))
    tail = fed(*(body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)))
    assert tail.usage() == AnswerUsage(500, 20, 64, 300)
    assert tail.num_bytes == len(body)
    assert tail.finish_reasons == ("length",)


@given(st.text())
def test_a_text_that_looks_like_usage_is_not_taken_for_it(text: str) -> None:
    content = text + json.dumps({"usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    assert fed(whole(content=content)).usage() is None
    assert fed(whole(content=content, usage=USAGE)).usage() == AnswerUsage(500, 20, 64, 300)


def test_usage_at_the_end_of_a_stream_counts_and_null_before_it_does_not() -> None:
    tail = fed(
        b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":null}],"usage":null}\n\n',
        b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":null}\n\n',
        b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n',
        b"data: [DONE]\n\n",
    )
    assert tail.usage() == AnswerUsage(3, 2)
    assert (tail.is_done, tail.has_error, tail.finish_reasons, tail.num_events) == (True, False, ("stop",), 4)


def test_timings_behind_the_usage_do_not_hide_it() -> None:
    assert fed(whole(usage=USAGE, timings={"cache_n": 0, "prompt_ms": "x" * 600})).usage() is not None


def test_what_is_kept_is_bounded_while_a_long_answer_passes() -> None:
    tail = fed(*[b"data: " + b"x" * 100 + b"\n\n"] * 1000, b"data: [DONE]\n\n")
    assert len(tail._tail) <= 4096
    assert tail.usage() is None


def test_an_error_event_at_the_end_is_seen() -> None:
    assert fed(b'data: {"choices":[]}\n\n', b'data: {"error":{"message":"dead"}}\n\n').has_error


def test_a_whole_answer_tells_usage_and_every_choice_s_end() -> None:
    tail = UsageTail()
    choices = [{"index": k, "message": {}, "finish_reason": reason} for k, reason in enumerate(("stop", "length"))]
    body = json.dumps({"id": "a", "usage": USAGE, "choices": choices, "timings": {}}).encode()
    tail.feed_whole(body)
    assert tail.usage() == AnswerUsage(500, 20, 64, 300)
    assert tail.finish_reasons == ("stop", "length")


def test_a_whole_answer_that_cannot_be_decoded_is_searched_for_what_it_has() -> None:
    tail = UsageTail()
    tail.feed_whole(whole(usage=USAGE, choices=3))
    assert tail.usage() == AnswerUsage(500, 20, 64, 300)
