from __future__ import annotations

from dataclasses import dataclass

from foveal.gateway.routing.smart_routing import smart_target
from support.gateway_tickets import request


@dataclass(frozen=True)
class Rule:
    to: str = "small"
    max_images: int = 0
    max_text_chars: int | None = None
    max_output_tokens: int | None = None
    tools: bool = False


def test_a_request_without_pictures_goes_to_the_small_model() -> None:
    assert smart_target([Rule()], request()) == "small"
    assert smart_target([Rule()], request(num_images=1)) is None


def test_every_condition_must_hold() -> None:
    rule = Rule(max_images=1, max_text_chars=100, max_output_tokens=64)
    assert smart_target([rule], request(num_images=1, text_chars=100, max_tokens=64)) == "small"
    assert smart_target([rule], request(num_images=2, text_chars=100, max_tokens=64)) is None
    assert smart_target([rule], request(num_images=1, text_chars=101, max_tokens=64)) is None
    assert smart_target([rule], request(num_images=1, text_chars=100, max_tokens=65)) is None


def test_an_answer_without_a_limit_may_be_long() -> None:
    assert smart_target([Rule(max_output_tokens=64)], request()) is None


def test_tools_need_a_rule_that_allows_them() -> None:
    assert smart_target([Rule()], request(has_tools=True)) is None
    assert smart_target([Rule(), Rule("with tools", tools=True)], request(has_tools=True)) == "with tools"


def test_the_first_rule_that_holds_wins() -> None:
    rules = [Rule("tiny", max_text_chars=20), Rule("small")]
    assert smart_target(rules, request(text_chars=20)) == "tiny"
    assert smart_target(rules, request(text_chars=21)) == "small"
