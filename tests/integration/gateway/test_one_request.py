"""One request through a real gateway to a fake backend, over real sockets."""

from __future__ import annotations

import json
from dataclasses import replace

import aiohttp
import pytest

from foveal.protocol.sse import parse_events
from support.fake_backend import fake_backend
from support.running_gateway import ask, gateway_config, post, running_gateway


async def test_an_answer_comes_back_whole_with_id_timing_and_security_headers() -> None:
    async with (
        fake_backend("one") as backend,
        running_gateway(gateway_config([backend])) as running,
        aiohttp.ClientSession(running.url) as session,
        session.post("/v1/chat/completions", json=ask(), headers={"X-Request-Id": "mine-1"}) as response,
    ):
        assert response.status == 200
        assert (await response.json())["choices"][0]["message"]["content"] == "the quick brown fox"
        assert response.headers["X-Request-Id"] == "mine-1"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["X-Backend"] == "one"
        assert "backend;dur=" in response.headers["Server-Timing"]
    assert running.count("success") == 1
    assert backend.requests[0].headers["x-request-id"] == "mine-1"


async def test_a_stream_passes_event_by_event() -> None:
    async with (
        fake_backend() as backend,
        running_gateway(gateway_config([backend])) as running,
        aiohttp.ClientSession(running.url) as session,
    ):
        backend.hold_after_words = 2
        backend.hold.clear()
        async with session.post("/v1/chat/completions", json=ask(stream=True)) as response:
            first = await response.content.readuntil(b"\n\n")
            assert b"the" in first
            assert b"quick" in await response.content.readuntil(b"\n\n")
            backend.hold.set()
            rest = parse_events(await response.read())
        assert rest[-1]["choices"][0]["finish_reason"] == "stop"
    assert running.count("success") == 1


async def test_the_client_s_key_cookies_and_compression_stay_at_the_gateway() -> None:
    headers = {"Authorization": "Bearer secret", "Cookie": "a=b", "Accept-Encoding": "gzip", "X-Session-ID": "s1"}
    async with (
        fake_backend() as backend,
        running_gateway(gateway_config([backend])) as running,
        aiohttp.ClientSession(running.url) as session,
    ):
        assert (await post(session, ask(), **headers))[0] == 200
    seen = backend.requests[0].headers
    assert not {"authorization", "cookie", "accept-encoding"} & set(seen)
    assert seen["x-session-id"] == "s1"
    assert seen["x-priority"] == "P1"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{not json", 400, "invalid_request"),
        (b"", 400, "invalid_request"),
        (json.dumps({"model": "other", "messages": []}).encode(), 404, "model_not_found"),
        (json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode(), 400, "invalid_request"),
        (json.dumps(ask(temperature="hot")).encode(), 400, "invalid_request"),
    ],
)
async def test_a_request_that_cannot_be_served_never_reaches_a_backend(body: bytes, status: int, code: str) -> None:
    async with (
        fake_backend() as backend,
        running_gateway(gateway_config([backend])) as running,
        aiohttp.ClientSession(running.url) as session,
        session.post("/v1/chat/completions", data=body) as response,
    ):
        error = (await response.json())["error"]
        assert (response.status, error["code"]) == (status, code)
        assert response.headers["X-Request-Id"]
    assert backend.requests == []
    assert running.count("client_error") == 1


async def test_probes_and_pages_answer() -> None:
    async with (
        fake_backend() as backend,
        running_gateway(gateway_config([backend])) as running,
        aiohttp.ClientSession(running.url) as session,
    ):
        for path in (
            "/live",
            "/ready",
            "/health",
            "/version",
            "/metrics",
            "/openapi.json",
            "/v1/models",
            "/v1/models/vlm",
        ):
            async with session.get(path) as response:
                assert response.status == 200, path
                assert response.headers["X-Frame-Options"] == "DENY"
        async with session.get("/v1/models") as response:
            assert [model["id"] for model in (await response.json())["data"]] == ["vlm"]
        async with session.get("/nothing") as response:
            assert (response.status, (await response.json())["error"]["code"]) == (404, "not_found")
        async with session.get("/admin/keys") as response:
            assert response.status == 401


async def test_feedback_is_recorded_for_an_answer_of_this_gateway() -> None:
    async with (
        fake_backend() as backend,
        running_gateway(gateway_config([backend])) as running,
        aiohttp.ClientSession(running.url) as session,
    ):
        async with session.post("/v1/chat/completions", json=ask()) as response:
            request_id = response.headers["X-Request-Id"]
            await response.read()
        for wanted, known in ((request_id, True), ("req-unknown", False)):
            async with session.post("/v1/feedback", json={"request_id": wanted, "score": -1}) as response:
                assert (response.status, (await response.json())["known"]) == (200, known)
        async with session.post("/v1/feedback", json={"request_id": request_id, "score": 3}) as response:
            assert response.status == 400


async def test_the_backend_s_own_name_replaces_the_client_s() -> None:
    async with fake_backend() as backend:
        config = gateway_config([backend])
        model = config.models["vlm"]
        entry = replace(model.backends[0], served_name="org/model")
        config = replace(config, models={"vlm": replace(model, backends=(entry,), aliases=("eyes",))})
        async with running_gateway(config) as running, aiohttp.ClientSession(running.url) as session:
            assert (await post(session, ask(model="eyes")))[0] == 200
    assert backend.requests[0].body == ask(model="org/model")


async def test_a_request_that_names_no_model_gets_the_default_one() -> None:
    async with fake_backend() as backend:
        config = replace(gateway_config([backend]), default_model="vlm")
        async with running_gateway(config) as running, aiohttp.ClientSession(running.url) as session:
            assert (await post(session, {"messages": [{"role": "user", "content": "hi"}]}))[0] == 200
    assert backend.requests[0].body == ask()
