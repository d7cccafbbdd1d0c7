"""What is refused: configurations, requests that can never be served, and a full queue."""

from __future__ import annotations

import pytest

from foveal.core.errors import (
    ConfigurationError,
    IntegrityError,
    InvalidRequestError,
    OverloadedError,
    PromptTooLongError,
)
from foveal.core.image_span import ImageSpan
from foveal.engine.scheduling.scheduler import Scheduler
from unit.engine.scheduling.builders import config, image, request


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_blocks", 0),
        ("block_size", 0),
        ("max_model_len", 1),
        ("max_num_batched_tokens", 0),
        ("max_num_seqs", 0),
        ("encoder_budget_tokens", 0),
        ("feature_cache_bytes", -1),
        ("batching", "dynamic"),
        ("max_waiting", 0),
        ("ageing_s", 0.0),
        ("retry_after_s", -1.0),
        ("watermark", 1.0),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_by_name_and_value(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=name) as refused:
        config(**{name: value})
    assert str(value) in str(refused.value)


def test_a_prompt_at_the_context_limit_is_refused_and_one_below_it_is_served() -> None:
    scheduler = Scheduler(config(max_model_len=16))
    with pytest.raises(PromptTooLongError, match=r"the prompt has 16 tokens; the limit is 16 .* --max-model-len"):
        scheduler.add(request("a", 16), 0.0)
    scheduler.add(request("b", 15), 0.0)


def test_the_message_says_how_many_tokens_the_images_take() -> None:
    with pytest.raises(PromptTooLongError, match=r"18 tokens \(16 from 2 images\).*Lower the image resolution"):
        Scheduler(config(max_model_len=16)).add(request("a", [1, image("a", 8), image("b", 8), 2]), 0.0)


def test_a_request_that_could_outgrow_the_whole_pool_is_refused() -> None:
    scheduler = Scheduler(config(num_blocks=4))
    with pytest.raises(PromptTooLongError, match=r"10 tokens and asks for up to 7 more; the KV cache holds 16"):
        scheduler.add(request("a", 10, max_tokens=7), 0.0)
    scheduler.add(request("b", 10, max_tokens=6), 0.0)
    scheduler.add(request("c", 10, max_tokens=None), 0.0)
    with pytest.raises(PromptTooLongError, match="the KV cache holds 16"):
        scheduler.add(request("d", 16, max_tokens=None), 0.0)


def test_an_empty_prompt_too_many_choices_and_a_reserved_id_are_refused() -> None:
    scheduler = Scheduler(config(max_num_seqs=2))
    with pytest.raises(InvalidRequestError, match="empty"):
        scheduler.add(request("a", []), 0.0)
    with pytest.raises(InvalidRequestError, match="n is 3; at most 2") as refused:
        scheduler.add(request("a", 3, n=3), 0.0)
    assert refused.value.param == "n"
    with pytest.raises(InvalidRequestError, match="'#'"):
        scheduler.add(request("a#1", 3), 0.0)


def test_an_id_in_use_is_refused_until_all_its_choices_have_ended() -> None:
    scheduler = Scheduler(config())
    scheduler.add(request("a", 3, n=2), 0.0)
    with pytest.raises(InvalidRequestError, match="in use"):
        scheduler.add(request("a", 3), 0.0)
    scheduler.commit(scheduler.schedule(0.0), {"a": [1, 1]}, 0.0)
    scheduler.abort("a")
    with pytest.raises(InvalidRequestError, match="in use"):
        scheduler.add(request("a", 3), 0.0)
    scheduler.abort("a#1")
    scheduler.add(request("a", 3), 0.0)


def test_a_full_queue_says_when_to_try_again() -> None:
    scheduler = Scheduler(config(max_waiting=2, retry_after_s=3.0))
    scheduler.add(request("a"), 0.0)
    scheduler.add(request("b"), 0.0)
    with pytest.raises(OverloadedError, match="2 requests are waiting; the limit is 2") as refused:
        scheduler.add(request("c"), 0.0)
    assert refused.value.retry_after_s == 3.0
    scheduler.abort("a")
    scheduler.add(request("c"), 0.0)


@pytest.mark.parametrize(
    "spans",
    [
        (ImageSpan(2, 4, 0), ImageSpan(4, 4, 1)),
        (ImageSpan(8, 4, 0),),
        (ImageSpan(0, 0, 0),),
        (ImageSpan(0, 2, 2),),
        (ImageSpan(0, 4, 0, 1),),
        (ImageSpan(0, 2, 0), ImageSpan(2, 2, 1), ImageSpan(4, 2, 0, 2)),
    ],
    ids=["overlapping", "outside", "empty", "no such image", "more features than there are", "alternating"],
)
def test_impossible_image_spans_are_our_own_bug(spans: tuple[ImageSpan, ...]) -> None:
    item = request("a", 10)
    item.images, item.spans = (image("a"), image("b")), spans
    with pytest.raises(IntegrityError):
        Scheduler(config()).add(item, 0.0)
