"""Request fields -> SamplingParams, prompts and messages."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from foveal.core.errors import InvalidRequestError
from foveal.core.priority import Priority
from foveal.protocol.chat import ChatCompletionRequest
from foveal.protocol.completions import CompletionRequest
from foveal.protocol.content import ChatMessage, check_messages, split_messages
from foveal.protocol.generation_fields import parse_priority

USER = [{"role": "user", "content": "hi"}]


def chat(**fields: Any) -> ChatCompletionRequest:
    return msgspec.convert({"model": "m", "messages": USER, **fields}, ChatCompletionRequest)


def completion(**fields: Any) -> CompletionRequest:
    return msgspec.convert({"model": "m", "prompt": "hi", **fields}, CompletionRequest)


def messages(raw: list[dict[str, Any]]) -> list[ChatMessage]:
    return msgspec.convert(raw, list[ChatMessage])


def test_every_sampling_field_reaches_sampling_params() -> None:
    fields = {
        "n": 2,
        "temperature": 0.5,
        "top_p": 0.9,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "seed": 7,
        "top_k": 5,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
        "min_tokens": 3,
        "ignore_eos": True,
        "stop_token_ids": (4,),
        "include_stop_str_in_output": True,
        "skip_special_tokens": False,
    }
    sampling = chat(**fields, max_tokens=9, stop="END").to_sampling()
    assert {name: getattr(sampling, name) for name in fields} == fields
    assert (sampling.max_tokens, sampling.stop) == (9, ("END",))


def test_max_completion_tokens_wins_over_max_tokens() -> None:
    assert chat(max_tokens=9, max_completion_tokens=4).to_sampling().max_tokens == 4


def test_chat_is_unlimited_and_completions_stop_at_16_tokens_by_default() -> None:
    assert chat().to_sampling().max_tokens is None
    assert completion().to_sampling().max_tokens == 16


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({}, None), ({"logprobs": False}, None), ({"logprobs": True}, 0), ({"logprobs": True, "top_logprobs": 3}, 3)],
)
def test_chat_logprobs_become_a_count(fields: dict[str, Any], expected: int | None) -> None:
    assert chat(**fields).to_sampling().logprobs == expected


def test_top_logprobs_without_logprobs_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="needs logprobs"):
        chat(top_logprobs=2).to_sampling()


@pytest.mark.parametrize(
    ("response_format", "schema"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {}),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}, {"type": "object"}),
    ],
)
def test_response_format_becomes_a_guide(response_format: dict[str, Any], schema: dict[str, Any] | None) -> None:
    guided = chat(response_format=response_format).to_sampling().guided
    assert (None if guided is None else guided.json_schema) == schema


def test_a_json_schema_format_without_schema_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"response_format\.json_schema\.schema"):
        chat(response_format={"type": "json_schema"}).to_sampling()


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
def test_a_demanded_tool_call_is_refused(choice: Any) -> None:
    with pytest.raises(InvalidRequestError, match="not supported yet"):
        chat(tools=[{"type": "function"}], tool_choice=choice).to_sampling()


def test_offered_tools_are_ignored_and_named() -> None:
    request = chat(tools=[{"type": "function"}], tool_choice="auto", mm_processor_kwargs={"a": 1})
    request.to_sampling()
    assert request.ignored_fields() == ["tools", "mm_processor_kwargs"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
    ],
)
def test_unsupported_completion_fields_are_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        completion(**fields).to_sampling()
    assert caught.value.param == param


def test_unsupported_fields_that_ask_for_nothing_are_accepted() -> None:
    assert completion(echo=False, suffix="", best_of=2, n=2, logit_bias={}).to_sampling().n == 2


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a b", ["a b"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        (["a", [1]], ["a", [1]]),
    ],
)
def test_prompts_are_text_or_token_ids_one_or_several(prompt: Any, expected: list[Any]) -> None:
    assert completion(prompt=prompt).prompts(max_prompts=8) == expected


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("", "prompt is empty"),
        ([], "prompt is empty"),
        (["a", ""], r"prompt\[1\] is empty"),
        ([[1], []], r"prompt\[1\] is empty"),
        ([1, "a"], r"prompt\[0\] must be"),
        ([True], r"prompt\[0\] must be"),
        ([[1.5]], r"prompt\[0\] must be"),
        ([-1], "outside"),
        ([2**31], "outside"),
        (["a"] * 9, "9 entries; the limit is 8"),
    ],
)
def test_bad_prompts_are_refused(prompt: Any, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        completion(prompt=prompt).prompts(max_prompts=8)


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (2, 2), ("1", 1), ("P0", 0), ("p2", 2)])
def test_priority_is_a_number_or_a_class(value: int | str, expected: int) -> None:
    assert parse_priority(value) is Priority(expected)


@pytest.mark.parametrize("value", [-1, 3, "P3", "", "high"])
def test_other_priorities_are_refused(value: int | str) -> None:
    with pytest.raises(InvalidRequestError, match="it must be 0, 1 or 2"):
        parse_priority(value)


def test_images_are_taken_out_in_order_and_leave_placeholders() -> None:
    plain, images = split_messages(
        messages(
            [
                {"role": "developer", "content": "be brief"},
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "data:a", "detail": "low"}},
                        {"type": "text", "text": "and"},
                        {"type": "image_url", "image_url": "data:b"},
                    ],
                },
                {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:c"}}]},
            ]
        )
    )
    assert [(part.url, part.detail) for _, part in images] == [
        ("data:a", "low"),
        ("data:b", "auto"),
        ("data:c", "auto"),
    ]
    assert [param for param, _ in images][1] == "messages[1].content[2].image_url"
    assert plain[0] == {"role": "system", "content": "be brief"}
    assert plain[1]["content"] == [{"type": "image"}, {"type": "text", "text": "and"}, {"type": "image"}]
    assert plain[2] == {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}


@pytest.mark.parametrize(
    "raw",
    [
        [],
        [{"role": "user"}],
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": [{"type": "text", "text": ""}]}],
        [{"role": "system", "content": ""}],
        [{"role": "assistant"}],
    ],
)
def test_empty_conversations_and_messages_are_refused(raw: list[dict[str, Any]]) -> None:
    with pytest.raises(InvalidRequestError, match=r"empty|missing"):
        check_messages(messages(raw))


def test_an_empty_answer_or_tool_result_may_be_sent_back() -> None:
    check_messages(
        messages([{"role": "assistant", "content": ""}, {"role": "tool", "content": "", "tool_call_id": "1"}])
    )
