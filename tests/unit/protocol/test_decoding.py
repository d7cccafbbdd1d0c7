"""Request bodies: every mistake is a 400 that names the field."""

from __future__ import annotations

import json

import pytest

from foveal.core.errors import InvalidRequestError
from foveal.protocol.chat import ChatCompletionRequest
from foveal.protocol.decoding import decode_request

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def decode(**changes: object) -> tuple[ChatCompletionRequest, list[str]]:
    return decode_request(json.dumps({**CHAT, **changes}).encode(), ChatCompletionRequest)


def test_unknown_fields_are_ignored_and_named() -> None:
    request, unknown = decode(zebra=1, apple={"x": 1})
    assert request.messages[0].content == "hi"
    assert unknown == ["apple", "zebra"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b'"text"', "a JSON string"),
        (b"[]", "a JSON array"),
        (b"null", "a JSON null"),
        (b'{"model": "a\xff"}', "UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_not_a_json_object_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        decode_request(body, ChatCompletionRequest)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"n": "2"}, "n"),
        ({"n": True}, "n"),
        ({"temperature": "hot"}, "temperature"),
        ({"stop": [1]}, "stop[...]"),
        ({"stream": "yes"}, "stream"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "king", "content": "hi"}]}, "messages[...].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[...].content"),
        ({"messages": [{"role": "user", "content": [{"type": "video_url"}]}]}, "messages[...].content[...].type"),
        ({"messages": [{"content": "hi"}]}, "messages[...].role"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"max_tokens": 2**40}, "max_tokens"),
    ],
)
def test_a_wrong_type_names_its_field(changes: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decode(**changes)
    assert caught.value.param is not None
    assert caught.value.param.replace("[0]", "[...]") == param
    assert caught.value.param in caught.value.message


def test_a_missing_field_is_named() -> None:
    with pytest.raises(InvalidRequestError, match="messages is missing") as caught:
        decode_request(b'{"model": "m"}', ChatCompletionRequest)
    assert caught.value.param == "messages"


def test_null_means_the_default() -> None:
    request, _ = decode(temperature=None, n=None, stop=None, stream=None, response_format=None)
    assert request.to_sampling().temperature == 1.0
