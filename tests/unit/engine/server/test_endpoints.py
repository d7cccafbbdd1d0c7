"""The application without a network: statuses, headers, formats, errors."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from starlette.applications import Starlette

from foveal.core.errors import EngineDeadError, OverloadedError
from foveal.core.priority import Priority
from foveal.engine.scheduling.request import FinishReason
from foveal.engine.server.app import create_app
from foveal.engine.server.config import ServerConfig
from foveal.protocol.sse import parse_events
from support.asgi_call import Answer, asgi_call
from support.fake_engine import FakeEngine
from support.pictures import data_url, png

USER = [{"role": "user", "content": "What is this?"}]


def app_of(engine: FakeEngine, **config: Any) -> Starlette:
    return create_app(engine, ServerConfig(access_log=False, **config), wall_time=lambda: 1_800_000_000.9)


async def chat(app: Starlette, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
    body = {"model": "fake-vlm", "messages": USER, **fields}
    return await asgi_call(app, "POST", "/v1/chat/completions", body, headers=headers)


async def complete(app: Starlette, **fields: Any) -> Answer:
    return await asgi_call(app, "POST", "/v1/completions", {"model": "fake-vlm", "prompt": "a b c", **fields})


@pytest.fixture
async def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def app(engine: FakeEngine) -> Starlette:
    return app_of(engine)


async def test_a_chat_answer_has_openai_s_shape(app: Starlette) -> None:
    answer = await chat(app, max_tokens=3)
    body = answer.json
    assert body.pop("id").startswith("chatcmpl-")
    assert body == {
        "object": "chat.completion",
        "created": 1_800_000_000,
        "model": "fake-vlm",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": " the quick brown"},
                "finish_reason": "length",
                "logprobs": None,
                "stop_reason": None,
            }
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 3,
            "total_tokens": 6,
            "prompt_tokens_details": {"cached_tokens": 2, "multimodal_tokens": {"image": 0}},
        },
    }


async def test_images_reach_the_engine_in_order_with_their_detail(app: Starlette, engine: FakeEngine) -> None:
    first, second = png("red"), png("blue")
    content = [
        {"type": "image_url", "image_url": {"url": data_url(first), "detail": "high"}},
        {"type": "text", "text": "or"},
        {"type": "image_url", "image_url": data_url(second)},
    ]
    answer = await chat(app, messages=[{"role": "user", "content": content}])
    request = engine.requests[0]
    assert request.images == [first, second]
    assert request.image_details == ["high", "auto"]
    assert answer.json["usage"]["prompt_tokens_details"]["multimodal_tokens"] == {"image": 32}


async def test_a_stream_begins_with_the_role_and_ends_with_usage_and_done(app: Starlette) -> None:
    answer = await chat(app, stream=True, max_tokens=2, stream_options={"include_usage": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    role, first, second, usage = parse_events(answer.body)
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert first["choices"][0]["delta"] == {"content": " the"}
    assert second["choices"][0]["finish_reason"] == "length"
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 2)
    assert len({chunk["id"] for chunk in (role, first, second, usage)}) == 1


async def test_streamed_and_whole_answers_are_the_same_text(app: Starlette) -> None:
    fields = {"n": 3, "seed": 2, "max_tokens": 7}
    whole = await chat(app, **fields)
    streamed = parse_events((await chat(app, stream=True, **fields)).body)
    texts = ["", "", ""]
    for choice in itertools.chain.from_iterable(chunk["choices"] for chunk in streamed):
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == [choice["message"]["content"] for choice in whole.json["choices"]]


async def test_one_event_may_carry_several_tokens(engine: FakeEngine, app: Starlette) -> None:
    engine.tokens_per_event = 4
    events = parse_events((await chat(app, stream=True, max_tokens=8)).body)
    assert [e["choices"][0]["delta"].get("content") for e in events] == [
        "",
        " the quick brown fox",
        " jumps over a lazy",
    ]


async def test_completion_choices_are_numbered_over_prompts(app: Starlette, engine: FakeEngine) -> None:
    answer = await complete(app, prompt=["a", [5, 6]], n=2, max_tokens=2)
    choices = answer.json["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert choices[1]["text"] == choices[3]["text"] == " quick brown"
    assert answer.json["usage"]["prompt_tokens"] == 3
    assert engine.requests[1].prompt_token_ids == [5, 6]


async def test_a_stream_of_several_prompts_tells_them_apart(app: Starlette) -> None:
    answer = await complete(app, prompt=["a", "b"], max_tokens=2, stream=True, stream_options={"include_usage": True})
    *chunks, usage = parse_events(answer.body)
    texts = {0: "", 1: ""}
    for chunk in chunks:
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert texts == {0: " the quick", 1: " the quick"}
    assert usage["usage"]["completion_tokens"] == 4


async def test_chat_logprobs_have_token_bytes_and_alternatives(app: Starlette) -> None:
    answer = await chat(app, max_tokens=2, logprobs=True, top_logprobs=2)
    first = answer.json["choices"][0]["logprobs"]["content"][0]
    assert (first["token"], first["logprob"], bytes(first["bytes"])) == (" the", -0.5, b" the")
    assert [entry["token"] for entry in first["top_logprobs"]] == [" the", " quick"]


@pytest.mark.parametrize("stream", [False, True])
async def test_completion_logprobs_count_offsets_over_the_whole_text(app: Starlette, stream: bool) -> None:
    answer = await complete(app, max_tokens=3, logprobs=1, stream=stream)
    choices = [e["choices"][0] for e in parse_events(answer.body)] if stream else answer.json["choices"]
    assert [offset for choice in choices for offset in choice["logprobs"]["text_offset"]] == [0, 4, 10]
    assert choices[0]["logprobs"]["top_logprobs"][0] == {" the": -0.5}


async def test_a_stop_string_is_reported_and_left_out(app: Starlette) -> None:
    choice = (await chat(app, stop=["fox", "zebra"])).json["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"], choice["stop_reason"]) == (
        " the quick brown ",
        "stop",
        "fox",
    )


@pytest.mark.parametrize(
    ("header", "field", "expected"),
    [(None, None, Priority.P1), ("P0", None, Priority.P0), ("P0", 2, Priority.P2), (None, "P2", Priority.P2)],
)
async def test_priority_comes_from_the_body_then_the_header(
    app: Starlette, engine: FakeEngine, header: str | None, field: Any, expected: Priority
) -> None:
    await chat(app, {"X-Priority": header} if header else None, priority=field)
    assert engine.requests[0].priority is expected


async def test_extensions_reach_the_engine(app: Starlette, engine: FakeEngine) -> None:
    await chat(
        app, cache_salt="tenant", truncate_prompt_tokens=5, chat_template_kwargs={"k": 1}, add_generation_prompt=False
    )
    request = engine.requests[0]
    assert (request.cache_salt, request.truncate_prompt_tokens, request.chat_template_kwargs) == ("tenant", 5, {"k": 1})
    assert request.add_generation_prompt is False
    assert request.timeout_s == 300.0


async def test_ignored_fields_are_named_in_a_header(app: Starlette) -> None:
    answer = await chat(app, tools=[{"type": "function"}], zebra=1, **{"bad\r\nname": 2})
    assert answer.status == 200
    assert answer.headers["x-foveal-warning"] == "ignored fields: tools, zebra, 1 more"


async def test_the_request_id_comes_back_unless_it_could_do_harm(app: Starlette) -> None:
    assert (await chat(app, {"X-Request-Id": "abc-1"})).headers["x-request-id"] == "abc-1"
    for harmful in ("", "a b", "x" * 129, "é"):
        assert (await chat(app, {"X-Request-Id": harmful})).headers["x-request-id"].startswith("req-")


@pytest.mark.parametrize("stream", [False, True])
async def test_server_timing_shows_the_waterfall_to_the_first_token(app: Starlette, stream: bool) -> None:
    timing = (await chat(app, stream=stream)).headers["server-timing"]
    assert timing.startswith("preprocess;dur=1.00, queue;dur=2.00, encode;dur=3.00, prefill;dur=4.00, ttft;dur=")


@pytest.mark.parametrize(
    ("fields", "status", "param", "code"),
    [
        ({"model": "gpt-9"}, 404, "model", "model_not_found"),
        ({"messages": []}, 400, "messages", "invalid_request"),
        ({"messages": [{"role": "user", "content": ""}]}, 400, "messages[0].content", "invalid_request"),
        ({"max_tokens": -1}, 400, "max_tokens", "invalid_request"),
        ({"temperature": 3}, 400, "temperature", "invalid_request"),
        ({"n": "two"}, 400, "n", "invalid_request"),
        ({"priority": 7}, 400, "priority", "invalid_request"),
        ({"messages": [{"role": "user", "content": "word " * 5000}]}, 400, None, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "x" * 1_000_001}]}, 400, "messages", "invalid_request"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url()}}] * 40}]},
            400,
            "messages",
            "too_many_images",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "http://10.0.0.1/a.png"}]}]},
            400,
            "messages[0].content[0].image_url",
            "forbidden_url",
        ),
    ],
)
async def test_bad_requests_get_their_status_field_and_code(
    app: Starlette, fields: dict[str, Any], status: int, param: str | None, code: str
) -> None:
    answer = await chat(app, **fields)
    assert (answer.status, answer.error["param"], answer.error["code"]) == (status, param, code)
    assert answer.error["type"] == "invalid_request_error"
    assert (await chat(app)).status == 200, "the next request works"


async def test_an_unknown_model_names_those_there_are(engine: FakeEngine) -> None:
    app = app_of(engine, served_model_names=("best", "also"))
    assert (await chat(app, model="also")).json["model"] == "best"
    assert "best, also" in (await chat(app, model="fake-vlm")).error["message"]


async def test_images_for_a_text_model_are_refused(engine: FakeEngine, app: Starlette) -> None:
    engine.model = type(engine.model)("fake-vlm", "fake-vlm", 4096, False, 0)
    answer = await chat(app, messages=[{"role": "user", "content": [{"type": "image_url", "image_url": data_url()}]}])
    assert answer.status == 400
    assert "text only" in answer.error["message"]


async def test_token_ids_over_the_context_length_are_refused_before_the_engine(
    app: Starlette, engine: FakeEngine
) -> None:
    answer = await complete(app, prompt=[1] * 4096)
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert engine.requests == []


async def test_a_huge_body_is_refused_early_and_the_rest_dropped(engine: FakeEngine) -> None:
    app = app_of(engine, max_body_bytes=1000)
    by_length = await asgi_call(app, "POST", "/v1/chat/completions", b"x" * 1001)
    assert (by_length.status, by_length.error["code"], by_length.complete) == (413, "payload_too_large", True)
    assert by_length.headers["connection"] == "close"
    chunked = await asgi_call(app, "POST", "/v1/chat/completions", chunks=iter([bytes(600)] * 5))
    assert (chunked.status, chunked.complete) == (413, True)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/v1/chat/completions/", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("POST", "/live", 405, "method_not_allowed"),
        ("GET", "/v1/models/none", 404, "model_not_found"),
    ],
)
async def test_unknown_routes_and_methods_answer_in_the_same_shape(
    app: Starlette, method: str, path: str, status: int, code: str
) -> None:
    answer = await asgi_call(app, method, path)
    assert (answer.status, answer.error["code"]) == (status, code)


async def test_an_unexpected_error_is_500_without_a_trace(engine: FakeEngine, app: Starlette) -> None:
    engine.fail_after, engine.failure = 0, RuntimeError("secret detail")
    answer = await chat(app)
    assert (answer.status, answer.error["code"]) == (500, "internal_error")
    assert "secret" not in answer.body.decode()


async def test_a_dead_engine_is_503_with_retry_after(engine: FakeEngine, app: Starlette) -> None:
    engine.fail_after, engine.failure = 3, EngineDeadError("the engine process was killed (SIGKILL)")
    answer = await chat(app)
    assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "engine_dead", "5")


@pytest.mark.parametrize("failure", [EngineDeadError("killed"), RuntimeError("bug"), OverloadedError("no pixels left")])
async def test_an_error_after_the_first_byte_is_an_explicit_event(
    engine: FakeEngine, app: Starlette, failure: Exception
) -> None:
    engine.fail_after, engine.failure = 2, failure
    answer = await chat(app, stream=True)
    assert (answer.status, answer.complete) == (200, True)
    last = answer.body.split(b"\n\n")[-2]
    assert last.startswith(b'data: {"error":{"message":')
    assert b"[DONE]" not in answer.body


async def test_an_error_before_the_first_event_of_a_stream_has_its_own_status(
    engine: FakeEngine, app: Starlette
) -> None:
    engine.fail_after, engine.failure = 0, OverloadedError("queue full", retry_after_s=2.2)
    answer = await chat(app, stream=True)
    assert (answer.status, answer.headers["retry-after"]) == (503, "3")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_time_out_of_the_engine_is_504_or_an_error_event(
    engine: FakeEngine, app: Starlette, stream: bool
) -> None:
    engine.finish_with = FinishReason.TIMEOUT
    answer = await chat(app, stream=stream)
    assert answer.status == (200 if stream else 504)
    assert b'"code":"timeout"' in answer.body


async def test_a_request_that_takes_too_long_is_ended_and_aborted(engine: FakeEngine) -> None:
    engine.hold_after = 0
    app = app_of(engine, request_timeout_s=0.02)
    answer = await chat(app)
    assert (answer.status, answer.error["code"]) == (504, "timeout")
    assert engine.aborted == [engine.requests[0].request_id]
    assert engine.num_in_flight == 0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_aborts_its_request(
    engine: FakeEngine, app: Starlette, stream: bool, path: str
) -> None:
    engine.hold_after = 2
    left = asyncio.Event()
    body = {"model": "fake-vlm", "messages": USER, "prompt": ["a", "b"], "stream": stream}
    call = asyncio.create_task(asgi_call(app, "POST", path, body, disconnect=left))
    await engine.holding.wait()
    left.set()
    answer = await call
    assert not answer.complete
    assert len(engine.aborted) == len(engine.requests)
    context = app.state.context
    assert (context.admission.num_requests, context.admission.num_bytes, engine.num_in_flight) == (0, 0, 0)
    assert context.metrics.value("foveal_requests_finished_total", finished_reason="abort") == 1


async def test_the_next_step_of_the_other_prompts_is_not_awaited_when_one_fails(
    engine: FakeEngine, app: Starlette
) -> None:
    engine.fail_after, engine.failure = 1, OverloadedError("no room")
    assert (await complete(app, prompt=["a", "b", "c"])).status == 503
    assert engine.num_in_flight == 0


async def test_requests_above_the_limit_get_503_with_retry_after(engine: FakeEngine) -> None:
    engine.hold_after = 0
    app = app_of(engine, max_concurrent_requests=1)
    first = asyncio.create_task(chat(app))
    await engine.holding.wait()
    second = await chat(app)
    assert (second.status, second.headers["retry-after"]) == (503, "1")
    engine.release.set()
    assert (await first).status == 200


async def test_the_api_key_guards_v1_and_leaves_the_probes_open(engine: FakeEngine) -> None:
    app = app_of(engine, api_key="secret")
    refused = await chat(app)
    assert (refused.status, refused.error["type"]) == (401, "authentication_error")
    assert (await chat(app, {"Authorization": "Bearer wrong"})).status == 401
    assert (await chat(app, {"Authorization": "Bearer secret"})).status == 200
    assert (await asgi_call(app, "GET", "/ready")).status == 200


async def test_probes_tell_loading_ready_and_draining(engine: FakeEngine, app: Starlette) -> None:
    async def statuses() -> list[Any]:
        pages = [await asgi_call(app, "GET", path) for path in ("/live", "/ready", "/health")]
        return [(page.status, page.json["status"]) for page in pages]

    engine.is_ready = False
    assert await statuses() == [(200, "live"), (503, "loading"), (503, "loading")]
    assert (await chat(app)).headers["retry-after"] == "5"
    engine.is_ready = True
    assert await statuses() == [(200, "live"), (200, "ready"), (200, "ready")]
    app.state.context.admission.in_flight.draining = True
    assert await statuses() == [(200, "live"), (503, "draining"), (503, "draining")]
    assert (await chat(app)).status == 503


async def test_models_tell_length_and_eyes(app: Starlette) -> None:
    listing = await asgi_call(app, "GET", "/v1/models")
    model = listing.json["data"][0]
    assert (model["id"], model["max_model_len"], model["supports_images"]) == ("fake-vlm", 4096, True)
    assert (await asgi_call(app, "GET", "/v1/models/fake-vlm")).json == model


async def test_metrics_follow_the_requests(engine: FakeEngine, app: Starlette) -> None:
    await chat(app, n=2, max_tokens=4)
    await chat(app, model="none")
    metrics = app.state.context.metrics
    assert metrics.value("foveal_requests_finished_total", finished_reason="length") == 2
    assert metrics.value("foveal_request_errors_total", code="model_not_found") == 1
    for name in ("time_to_first_token_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds"):
        assert metrics.value(f"foveal_{name}_count") == 1, name
    assert metrics.value("foveal_inter_token_latency_seconds_count") == 3
    assert metrics.value("foveal_request_generation_tokens_sum") == 8
    page = await asgi_call(app, "GET", "/metrics")
    assert b'foveal_num_requests_running{model_name="fake-vlm"} 0.0' in page.body
