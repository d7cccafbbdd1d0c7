"""What a request is expected to cost: by the operator's word, the backend's, or its answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from foveal.core.errors import ConfigurationError
from foveal.gateway.config.models import PricingConfig
from foveal.gateway.pricing.model_pricer import Settlement
from foveal.gateway.pricing.output_tokens import OutputTokens
from foveal.gateway.pricing.pricer import Pricer
from foveal.gateway.pricing.published import read_published_costs
from foveal.gateway.pricing.rates import Timing
from foveal.gateway.pricing.rules.registry import make_rule
from foveal.gateway.request.view import ImageRef, RequestView


def _view(*sizes: tuple[int, int], chars: int = 400, model: str = "m", **fields: Any) -> RequestView:
    images = tuple(ImageRef("data", index, index, "auto", *size) for index, size in enumerate(sizes))
    view = RequestView("chat", model, 0, 0, True, 1000, chars, images=images)
    return replace(view, **fields)


def _page(**entry: Any) -> bytes:
    return json.dumps({"object": "list", "data": [{"id": "served", "object": "model", **entry}]}).encode()


_COSTS = {
    "kv_bytes_per_token": 1000,
    "vision": {
        "family": "qwen2_5_vl",
        "options": {"patch_size": 14, "merge_size": 2, "min_pixels": 3136, "max_pixels": 12845056},
        "pixel_budgets": {"low": 262144, "auto": 1572864, "high": None},
    },
    "latency": {"step_s": [1e-3, *[1e-4] * 7], "vision_s": [1e-3, 1e-3, 1e-5, 0.0]},
}


def test_a_picture_costs_its_tokens_its_encoding_and_its_cache() -> None:
    config = PricingConfig(family="qwen2_5_vl", encode_ms_per_token=0.2, kv_bytes_per_token=1000)

    price = Pricer({"m": config}).price(_view((1024, 768)))

    assert price.vision.num_tokens == 999
    assert price.vision.encode_ms == pytest.approx(199.8)
    assert price.vision.kv_bytes == 999_000
    assert price.prompt_tokens > 1000


def test_a_larger_picture_costs_more_where_the_family_is_dynamic() -> None:
    dynamic, fixed = (PricingConfig(family=name, decode_ms_per_token=0.1) for name in ("qwen2_5_vl", "llava"))
    pricer = Pricer({"m": dynamic, "fixed": fixed})
    sizes = ((224, 224), (640, 480), (1600, 1200))

    costs = [pricer.price(_view(size)).cost_ms for size in sizes]

    assert costs[0] < costs[1] / 1.2 < costs[2] / 1.2
    assert len({pricer.price(_view(size), "fixed").cost_ms for size in sizes}) == 1


def test_nothing_is_free() -> None:
    config = PricingConfig(prefill_ms_per_token=0.0, decode_ms_per_token=0.0)

    assert Pricer({"m": config}).price(_view(chars=0)).cost_ms > 0


def test_output_is_capped_by_the_request_and_multiplied_by_its_choices() -> None:
    pricer = Pricer({"m": PricingConfig(default_output_tokens=100)})

    assert pricer.price(_view()).output_tokens == 100
    assert pricer.price(_view(max_tokens=7)).output_tokens == 7
    assert pricer.price(_view(max_tokens=7, num_choices=3)).output_tokens == 21


def test_token_ids_are_counted_not_guessed() -> None:
    pricer = Pricer({"m": PricingConfig()})

    more = pricer.price(_view(chars=0, prompt_ids=1500)).prompt_tokens - pricer.price(_view(chars=0)).prompt_tokens

    assert more == 1500


def test_what_the_backend_publishes_is_used() -> None:
    pricer = Pricer({"m": PricingConfig()})
    assert pricer.publish("m", _page(costs=_COSTS), "served")

    price = pricer.price(_view((1024, 768)))

    work = make_rule("qwen2_5_vl", {}).work(1024, 768, False)
    assert price.vision.num_tokens == work.num_tokens
    assert price.vision.kv_bytes == 1000 * work.num_tokens
    assert price.vision.encode_ms == pytest.approx(1e3 * (2e-3 + 1e-5 * work.num_patches))


def test_the_operators_word_stands_above_the_backends() -> None:
    config = PricingConfig(family="fixed", family_options={"tokens": 64}, kv_bytes_per_token=7, encode_ms_per_token=1.0)
    pricer = Pricer({"m": config})
    pricer.publish("m", _page(costs=_COSTS), "served")

    price = pricer.price(_view((1024, 768)))

    assert (price.vision.num_tokens, price.vision.kv_bytes, price.vision.encode_ms) == (64, 64 * 7, 64.0)


@pytest.mark.parametrize(
    "page",
    [b"", b"<html>", b"[]", b'{"data":[]}', b'{"data":[{"id":"other"},{"id":"third"}]}', _page(root="a-text-model")],
)
def test_a_page_that_says_nothing_is_no_reason_to_fail(page: bytes) -> None:
    assert read_published_costs(page, "served") is None


@pytest.mark.parametrize(
    "costs",
    [
        {"vision": {"family": "a_family_of_the_future", "options": {}}},
        {"vision": {"family": "qwen2_5_vl", "options": {"patch_size": 0}}},
        {"latency": {"step_s": [1.0]}},
        {"a_field_of_the_future": 1},
    ],
)
def test_facts_of_another_version_are_left_out(costs: dict[str, Any]) -> None:
    pricer = Pricer({"m": PricingConfig()})
    pricer.publish("m", _page(costs=costs), "served")

    assert pricer.price(_view((1024, 768))).cost_ms > 0


def test_a_checkpoints_name_gives_a_first_rule() -> None:
    pricer = Pricer({"m": PricingConfig()})

    assert pricer.publish("m", _page(root="Qwen/Qwen2.5-VL-3B-Instruct"), "served")
    assert pricer.price(_view((1024, 768))).vision.num_tokens == 999


def test_a_guessed_rule_gives_way_to_what_answers_say() -> None:
    pricer = Pricer({"m": PricingConfig()})
    page = _page(root="Qwen/Qwen2.5-VL-3B-Instruct")
    pricer.publish("m", page, "served")

    for _ in range(10):
        pricer.settle(_view((1024, 768)), Settlement(350, 10, image_tokens=250))
    assert pricer.price(_view((1024, 768))).vision.num_tokens == 250

    pricer.publish("m", page, "served")  # a backend restarts: the guess was refuted once and for all
    assert pricer.price(_view((1024, 768))).vision.num_tokens == 250


def test_a_right_guess_stays() -> None:
    pricer = Pricer({"m": PricingConfig()})
    pricer.publish("m", _page(root="Qwen/Qwen2.5-VL-3B-Instruct"), "served")
    for _ in range(20):
        pricer.settle(_view((1024, 768)), Settlement(999 + 110, 10))

    assert pricer.price(_view((640, 480))).vision.num_tokens == 23 * 17


def test_an_unknown_family_is_learnt_from_usage_alone() -> None:
    """A backend that counts only prompt_tokens: text is learnt from text, images from the rest."""
    pricer = Pricer({"m": PricingConfig()})
    for chars in (100, 400, 900, 200, 700):
        pricer.settle(_view(chars=chars), Settlement(10 + chars // 4, 20))
    for _ in range(5):
        pricer.settle(_view((800, 600)), Settlement(110 + 576, 20))
        pricer.settle(_view((800, 600), (800, 600)), Settlement(110 + 2 * 576, 20))

    assert pricer.price(_view((800, 600))).vision.num_tokens == pytest.approx(576, abs=15)


def test_text_is_kept_up_to_date_after_it_was_learnt() -> None:
    pricer = Pricer({"m": PricingConfig()})
    for index in range(200):
        pricer.settle(_view(chars=100 + index % 9 * 100), Settlement(10 + (100 + index % 9 * 100) // 4, 5))
    assert pricer.price(_view(chars=800)).prompt_tokens == pytest.approx(210, rel=0.1)

    for index in range(2000):
        pricer.settle(_view(chars=100 + index % 9 * 100), Settlement(10 + (100 + index % 9 * 100) // 2, 5))
    assert pricer.price(_view(chars=800)).prompt_tokens == pytest.approx(410, rel=0.1)


def test_text_and_prices_of_one_model_do_not_leak_into_another() -> None:
    pricer = Pricer({"m": PricingConfig(), "n": PricingConfig()})
    before = pricer.price(_view(), "n")
    for _ in range(20):
        pricer.settle(_view(), Settlement(4000, 900, timing=Timing(9000.0, 99_000.0, True)))

    assert pricer.price(_view(), "n") == before
    assert pricer.price(_view()).cost_ms > 5 * before.cost_ms


def test_what_was_learnt_survives_a_reload_unless_the_pricing_changed() -> None:
    configs = {"m": PricingConfig(), "n": PricingConfig()}
    pricer = Pricer(configs)
    for _ in range(20):
        for name in configs:
            pricer.settle(_view(), Settlement(4000, 900), name)
    learnt = pricer.price(_view(), "n")

    pricer.reload({"m": PricingConfig(default_output_tokens=5), "n": PricingConfig()})

    assert pricer.price(_view(), "n") == learnt
    assert pricer.price(_view(), "m").output_tokens == 5


def test_a_reload_that_cannot_be_changes_nothing() -> None:
    pricer = Pricer({"m": PricingConfig(family="llava")})

    with pytest.raises(ConfigurationError, match="llavo"):
        pricer.reload({"m": PricingConfig(family="llavo")})
    assert pricer.price(_view((10, 10))).vision.num_tokens == 576


def test_a_model_nobody_configured_has_a_price_too() -> None:
    assert Pricer({}).price(_view((10, 10), model="unknown")).cost_ms > 0


def test_answers_cut_off_by_their_limit_do_not_shorten_the_expectation() -> None:
    output = OutputTokens(256)
    for _ in range(50):
        output.learn(8, 8)
    assert output.estimate(None) == 256

    for _ in range(200):
        output.learn(40, None)
    assert output.estimate(None) == pytest.approx(40, abs=1)
