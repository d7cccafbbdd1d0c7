"""What the official `openai` client must get from any of our servers, whatever engine is behind it.

Subclass it and provide the fixture `served`. The tests assert the protocol, never the words of an answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest

from support.pictures import data_url, png

__all__ = ["OpenAIClientContract", "Served"]


@dataclass
class Served:
    """`base_url` ends in /v1."""

    base_url: str
    model: str
    supports_images: bool = True


def user(*parts: str | bytes) -> list[Any]:
    """One user message: texts as they are, bytes as pictures."""
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": data_url(part), "detail": "auto"}}
        for part in parts
    ]
    return [{"role": "user", "content": content}]


class OpenAIClientContract:
    @pytest.fixture
    async def served(self) -> AsyncIterator[Served]:
        raise NotImplementedError
        yield

    @pytest.fixture
    async def client(self, served: Served) -> AsyncIterator[openai.AsyncOpenAI]:
        async with openai.AsyncOpenAI(base_url=served.base_url, api_key="any", max_retries=0, timeout=120) as client:
            yield client

    @pytest.fixture
    def ask(self, served: Served) -> dict[str, Any]:
        """What most requests have in common; the tests override parts of it."""
        return {"model": served.model, "messages": user("Say something."), "max_tokens": 8, "temperature": 0}

    async def test_text_is_answered(self, client: openai.AsyncOpenAI, ask: dict[str, Any]) -> None:
        answer = await client.chat.completions.create(**ask)
        assert answer.choices[0].message.role == "assistant"
        assert answer.choices[0].finish_reason in ("stop", "length")
        assert answer.usage is not None
        assert 1 <= answer.usage.completion_tokens <= 8
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens

    async def test_the_synchronous_client_works_too(self, served: Served, ask: dict[str, Any]) -> None:
        def call() -> str | None:
            with openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=0) as client:
                return client.chat.completions.create(**ask).choices[0].message.content

        assert await asyncio.to_thread(call)

    async def test_an_image_costs_prompt_tokens(
        self, client: openai.AsyncOpenAI, served: Served, ask: dict[str, Any]
    ) -> None:
        if not served.supports_images:
            pytest.skip("a text model")
        ask["messages"] = user(png("red", (64, 64)), "What colour is it?")
        answer = await client.chat.completions.create(**ask)
        one = answer.usage.prompt_tokens_details.multimodal_tokens["image"]
        assert one > 0
        ask["messages"] = user(png("red", (64, 64)), "or", png("blue", (64, 64)), "?")
        answer = await client.chat.completions.create(**ask)
        assert answer.usage.prompt_tokens_details.multimodal_tokens["image"] == 2 * one

    async def test_a_stream_carries_the_same_text_and_ends_with_usage(
        self, client: openai.AsyncOpenAI, ask: dict[str, Any]
    ) -> None:
        whole = await client.chat.completions.create(**ask)
        stream = await client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
        assert chunks[0].choices[0].delta.role == "assistant"
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == whole.choices[0].message.content
        assert [chunk.usage is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
        assert chunks[-1].choices == []
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
        assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason

    async def test_the_client_s_stream_helper_accumulates(
        self, client: openai.AsyncOpenAI, ask: dict[str, Any]
    ) -> None:
        # A guided answer, because the helper raises for one that ends at max_tokens.
        schema = {
            "type": "object",
            "properties": {"ok": {"type": "boolean"}},
            "required": ["ok"],
            "additionalProperties": False,
        }
        guide = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}}
        async with client.chat.completions.stream(**{**ask, "max_tokens": 40}, response_format=guide) as stream:
            async for _ in stream:
                pass
            final = await stream.get_final_completion()
        assert json.loads(final.choices[0].message.content).keys() == {"ok"}

    async def test_a_json_schema_is_followed(self, client: openai.AsyncOpenAI, ask: dict[str, Any]) -> None:
        schema = {
            "type": "object",
            "properties": {"colour": {"enum": ["red", "blue"]}, "many": {"type": "boolean"}},
            "required": ["colour", "many"],
            "additionalProperties": False,
        }
        ask |= {
            "max_tokens": 300,
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}},
        }
        answer = await client.chat.completions.create(**ask)
        value = json.loads(answer.choices[0].message.content)
        assert value.keys() == {"colour", "many"}
        assert value["colour"] in ("red", "blue")
        assert isinstance(value["many"], bool)

    async def test_logprobs_come_with_alternatives(self, client: openai.AsyncOpenAI, ask: dict[str, Any]) -> None:
        answer = await client.chat.completions.create(**ask, logprobs=True, top_logprobs=3)
        content = answer.choices[0].logprobs.content
        assert len(content) == answer.usage.completion_tokens
        for entry in content:
            assert entry.logprob <= 0
            values = [top.logprob for top in entry.top_logprobs]
            assert len(values) == 3
            assert values == sorted(values, reverse=True)

    async def test_n_choices_are_numbered(self, client: openai.AsyncOpenAI, ask: dict[str, Any]) -> None:
        answer = await client.chat.completions.create(**{**ask, "temperature": 1.0, "seed": 3}, n=3)
        assert [choice.index for choice in answer.choices] == [0, 1, 2]

    async def test_a_stop_string_never_leaks(self, client: openai.AsyncOpenAI, ask: dict[str, Any]) -> None:
        text = (await client.chat.completions.create(**ask)).choices[0].message.content
        stop = text[len(text) // 2 :][:2]
        answer = await client.chat.completions.create(**ask, stop=[stop])
        assert stop not in answer.choices[0].message.content
        assert answer.choices[0].finish_reason == "stop"

    async def test_completions_take_text_and_several_prompts(self, client: openai.AsyncOpenAI, served: Served) -> None:
        one = await client.completions.create(model=served.model, prompt="Once", max_tokens=4, temperature=0)
        two = await client.completions.create(model=served.model, prompt=["Once", "Once"], max_tokens=4, temperature=0)
        assert [choice.text for choice in two.choices] == [one.choices[0].text] * 2
        stream = await client.completions.create(
            model=served.model, prompt="Once", max_tokens=4, temperature=0, stream=True
        )
        assert "".join([chunk.choices[0].text async for chunk in stream]) == one.choices[0].text

    async def test_the_model_is_listed(self, client: openai.AsyncOpenAI, served: Served) -> None:
        assert [model.id async for model in client.models.list()] == [served.model]
        assert (await client.models.retrieve(served.model)).object == "model"

    @pytest.mark.parametrize(
        ("changes", "error", "words"),
        [
            ({"model": "gpt-9"}, openai.NotFoundError, "gpt-9"),
            ({"messages": []}, openai.BadRequestError, "messages is empty"),
            ({"messages": [{"role": "user", "content": ""}]}, openai.BadRequestError, "empty"),
            ({"max_tokens": -1}, openai.BadRequestError, "max_tokens is -1"),
            ({"temperature": "hot"}, openai.BadRequestError, "temperature"),
            ({"messages": user(*[png()] * 40)}, openai.BadRequestError, "40 images"),
            ({"messages": user(b"no picture")}, openai.BadRequestError, "not an image"),
            ({"messages": user(png()[:-30])}, openai.BadRequestError, "truncated"),
            ({"tool_choice": "required"}, openai.BadRequestError, "not supported yet"),
        ],
        ids=lambda value: str(value)[:40],
    )
    async def test_a_bad_request_raises_the_client_s_exception_and_the_next_one_works(
        self,
        client: openai.AsyncOpenAI,
        served: Served,
        ask: dict[str, Any],
        changes: dict[str, Any],
        error: type[openai.APIStatusError],
        words: str,
    ) -> None:
        if words == "truncated" and served.model == "fake-vlm":
            pytest.skip("the fake engine decodes no pictures")
        with pytest.raises(error, match=words) as caught:
            await client.chat.completions.create(**{**ask, **changes})
        assert caught.value.body["type"] == "invalid_request_error"
        assert caught.value.request_id
        assert (await client.chat.completions.create(**ask)).choices

    async def test_two_hundred_requests_of_which_many_leave_early_leave_nothing_behind(
        self, client: openai.AsyncOpenAI, served: Served, ask: dict[str, Any]
    ) -> None:
        async def one(number: int) -> None:
            stream = await client.chat.completions.create(**ask, stream=True)
            async for _ in stream:
                if number % 3 == 0:
                    break
            await stream.close()

        for start in range(0, 200, 20):
            await asyncio.gather(*(one(start + k) for k in range(20)))
        root = served.base_url.removesuffix("/v1")
        async with asyncio.timeout(30):
            while (await client.get(f"{root}/health", cast_to=object))["requests_in_flight"]:
                await asyncio.sleep(0.01)  # the server may be another process: no event to wait for
