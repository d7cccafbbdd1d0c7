"""Errors, events and the OpenAPI document."""

from __future__ import annotations

import json

import jsonschema_rs
import msgspec
import pytest

from foveal.core import errors
from foveal.protocol.chat_response import ChatChunk, ChatChunkChoice, ChatDelta
from foveal.protocol.error_body import encode_error, error_status
from foveal.protocol.openapi import openapi_document
from foveal.protocol.sse import DONE, event, parse_events
from foveal.protocol.usage import Usage


def test_a_request_error_shows_message_type_param_and_code() -> None:
    body = json.loads(encode_error(errors.PromptTooLongError("too long", param="prompt")))
    assert body == {
        "error": {
            "message": "too long",
            "type": "invalid_request_error",
            "param": "prompt",
            "code": "context_length_exceeded",
        }
    }


def test_an_unexpected_error_gives_no_detail_away() -> None:
    body = encode_error(RuntimeError("/secret/path"))
    assert b"secret" not in body
    assert error_status(RuntimeError()) == 500


def test_a_dead_engine_is_503_and_says_to_retry() -> None:
    error = errors.EngineDeadError("the engine process ended")
    assert error_status(error) == 503
    assert b"retry" in encode_error(error)


def test_events_survive_newlines_and_round_trip() -> None:
    stream = event({"text": "a\n\nb"}) + event({"k": 1}) + DONE
    assert parse_events(stream) == [{"text": "a\n\nb"}, {"k": 1}]


def test_a_stream_without_done_is_noticed() -> None:
    with pytest.raises(ValueError, match="DONE"):
        parse_events(event({"k": 1}))


def test_a_chunk_has_usage_only_where_it_was_asked_for() -> None:
    plain = ChatChunk("id", 1, "m", [ChatChunkChoice(0, ChatDelta(content="a"))])
    assert "usage" not in json.loads(msgspec.json.encode(plain))
    last = json.loads(msgspec.json.encode(ChatChunk("id", 1, "m", [], Usage.of(5, 2, 1, 3))))
    assert last["choices"] == []
    assert last["usage"]["prompt_tokens_details"] == {"cached_tokens": 1, "multimodal_tokens": {"image": 3}}
    assert last["usage"]["total_tokens"] == 7


def test_every_reference_of_the_openapi_document_resolves() -> None:
    document = openapi_document("1.0")
    text = json.dumps(document)
    names = set(document["components"]["schemas"])
    used = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert used <= names
    assert json.loads(text) == document


@pytest.mark.parametrize("name", ["ChatCompletionRequest", "CompletionRequest"])
def test_the_documented_limits_are_those_of_sampling_params(name: str) -> None:
    schemas = openapi_document("1.0")["components"]["schemas"]
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}
    validator = jsonschema_rs.validator_for(schema)
    base = {"model": "m", "prompt": "hi", "messages": [{"role": "user", "content": "hi"}]}
    assert validator.is_valid(base)
    for field, bad in [
        ("n", 17),
        ("temperature", 2.5),
        ("top_p", 0),
        ("min_tokens", -1),
        ("max_tokens", 0),
        ("priority", 3),
    ]:
        assert not validator.is_valid({**base, field: bad}), field
