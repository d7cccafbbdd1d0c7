"""What the gateway predicts of a picture is what the engine counts: a dynamic-resolution model, all processes real."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from harness.server import Server, running_server

from foveal.gateway.config.models import PricingConfig
from foveal.gateway.pricing.model_pricer import Settlement
from foveal.gateway.pricing.pricer import Pricer
from foveal.gateway.request.read_view import read_view
from support.pictures import data_url, png
from support.tiny_models import tiny_checkpoint

FLAGS = ("--threads", "1", "--preprocess-workers", "1", "--num-kv-blocks", "1000", "--log-level", "warning")
_SIZES = ((16, 16), (17, 90), (64, 32), (100, 40), (40, 100), (300, 200), (31, 33), (2000, 1000))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server(str(tiny_checkpoint("qwen2_5_vl")), "--served-model-name", "tiny", *FLAGS) as running:
        yield running


def _body(*sizes: tuple[int, int], detail: str = "auto", text: str = "What?") -> bytes:
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": data_url(png(size=size)), "detail": detail}} for size in sizes
    ]
    messages = [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
    return json.dumps({"model": "tiny", "messages": messages, "max_tokens": 2, "ignore_eos": True}).encode()


def _usage(server: Server, body: bytes) -> dict[str, Any]:
    request = urllib.request.Request(f"{server.url}/v1/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as reply:
        usage: dict[str, Any] = json.load(reply)["usage"]
    return usage


def _pricer(server: Server) -> Pricer:
    with urllib.request.urlopen(f"{server.url}/v1/models", timeout=60) as reply:
        page = reply.read()
    pricer = Pricer({"tiny": PricingConfig()})
    assert pricer.publish("tiny", page, "tiny")
    return pricer


@pytest.mark.parametrize("detail", ["auto", "low", "high"])
def test_vision_tokens_predicted_are_the_tokens_counted(server: Server, detail: str) -> None:
    pricer = _pricer(server)
    seen = set()

    for size in _SIZES:
        body = _body(size, detail=detail)
        counted = _usage(server, body)["prompt_tokens_details"]["multimodal_tokens"]["image"]
        assert pricer.price(read_view(body, {}, "chat")).vision.num_tokens == counted, size
        seen.add(counted)

    assert len(seen) > 3  # the cost really varies


def test_several_pictures_add_up(server: Server) -> None:
    body = _body(*_SIZES[:4])
    counted = _usage(server, body)["prompt_tokens_details"]["multimodal_tokens"]["image"]

    vision = _pricer(server).price(read_view(body, {}, "chat")).vision

    assert vision.num_tokens == counted
    # 2 (K and V) x 3 layers x 2 KV heads x 16 x 4 bytes
    assert vision.kv_bytes == counted * 2 * 3 * 2 * 16 * 4


def test_whole_prompts_are_predicted_after_a_few_answers(server: Server) -> None:
    pricer = _pricer(server)
    for length in (10, 200, 60, 120):
        body = _body((64, 32), text="x" * length)
        usage = _usage(server, body)
        image = usage["prompt_tokens_details"]["multimodal_tokens"]["image"]
        found = Settlement(usage["prompt_tokens"], usage["completion_tokens"], image_tokens=image)
        pricer.settle(read_view(body, {}, "chat"), found)

    body = _body((300, 200), text="x" * 150)

    predicted = pricer.price(read_view(body, {}, "chat")).prompt_tokens
    assert predicted == pytest.approx(_usage(server, body)["prompt_tokens"], rel=0.05)
